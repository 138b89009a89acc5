package leg

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/emiago/sipgo/sip"
)

// Leg is a dialog, or what is to become one.
type Leg struct {
	E         *Endpoint
	Transport string
	CallID    string

	dest string // where the first request went or came from

	mu         sync.Mutex
	localTag   string
	remoteTag  string
	local      sip.Uri
	localName  string
	remote     sip.Uri
	remoteName string
	target     sip.Uri
	routes     []string
	cseq       uint32
	remoteCSeq uint32
	sdpID      uint64
	sdpVersion uint64
	remoteSDP  []byte
	updates    bool // the other side takes UPDATE

	acked chan struct{} // closed by the ACK for the 2xx that was sent last
	busy  bool          // an INVITE of either side is under way
}

// Party is an end of a call as From and To tell it.
type Party struct {
	Name string
	URI  sip.Uri
}

func newSession() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return binary.BigEndian.Uint64(b[:]) >> 2
}

// Calling makes the leg of a call that begins here. Its Call-ID names no host: it passes the proxy unchanged, and no inside
// address may leave.
func (e *Endpoint) Calling(transport, dest string, uri sip.Uri, from, to Party) *Leg {
	return &Leg{
		E: e, Transport: transport, dest: dest, CallID: sip.GenerateTagN(24), localTag: sip.GenerateTagN(16),
		local: from.URI, localName: from.Name, remote: to.URI, remoteName: to.Name, target: uri, cseq: 100, sdpID: newSession(),
	}
}

// Called makes the leg of a call that begins with a request from outside.
func (e *Endpoint) Called(req *sip.Request) *Leg {
	l := &Leg{
		E: e, Transport: strings.ToLower(req.Transport()), dest: req.Source(), CallID: req.CallID().Value(), localTag: sip.GenerateTagN(16),
		local: req.To().Address, localName: req.To().DisplayName, remote: req.From().Address, remoteName: req.From().DisplayName,
		cseq: 100, remoteCSeq: req.CSeq().SeqNo, sdpID: newSession(), remoteSDP: bytes.Clone(req.Body()),
	}
	l.remoteTag, _ = req.From().Params.Get("tag")
	if c := req.Contact(); c != nil {
		l.target = c.Address
	} else {
		l.target = req.From().Address
	}
	l.routes = routeSet(req.GetHeaders("Record-Route"))
	l.allow(req)
	return l
}

// allow notes whether the other side says that it takes UPDATE; a message without Allow leaves that as it is. mu is held, or nobody else has l.
func (l *Leg) allow(m sip.Message) {
	for i, h := range m.GetHeaders("Allow") {
		if i == 0 {
			l.updates = false
		}
		for method := range strings.SplitSeq(h.Value(), ",") {
			l.updates = l.updates || strings.TrimSpace(method) == string(sip.UPDATE)
		}
	}
}

// TakesUpdate tells whether the other side says that it takes UPDATE (RFC 3311 section 4).
func (l *Leg) TakesUpdate() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.updates
}

// routeSet takes the entries apart that stand in one line.
func routeSet(hs []sip.Header) (out []string) {
	for _, h := range hs {
		depth, begin, v := 0, 0, h.Value()
		for i := range len(v) {
			switch {
			case v[i] == '<':
				depth++
			case v[i] == '>':
				depth--
			case v[i] == ',' && depth == 0:
				out = append(out, strings.TrimSpace(v[begin:i]))
				begin = i + 1
			}
		}
		out = append(out, strings.TrimSpace(v[begin:]))
	}
	return out[:min(len(out), 16)]
}

// LocalTag is this side's tag.
func (l *Leg) LocalTag() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.localTag
}

// Fork gives this side of a call that came in another tag: what is answered from now on is of another early dialog, as if a proxy had sent
// the INVITE to somebody else (RFC 3261 section 12.1). A caller holds to the first description that it gets of a dialog.
func (l *Leg) Fork() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.localTag = sip.GenerateTagN(16)
}

// RemoteTag is the other side's tag, "" before its first answer.
func (l *Leg) RemoteTag() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.remoteTag
}

// RemoteSDP is the last description of the other side, nil before there is one.
func (l *Leg) RemoteSDP() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.remoteSDP
}

// Matches reports whether an in-dialog request is of this leg.
func (l *Leg) Matches(req *sip.Request) bool {
	from, _ := req.From().Params.Get("tag")
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.remoteTag == "" || l.remoteTag == from
}

// Fresh takes a request's sequence number; false: it is old (RFC 3261 section 12.2.2).
func (l *Leg) Fresh(req *sip.Request) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := req.CSeq().SeqNo
	if n <= l.remoteCSeq {
		return false
	}
	l.remoteCSeq = n
	return true
}

// describe is a description as this leg tells it: one session with a version that grows, whoever made it (RFC 3264 section 8).
func (l *Leg) describe(sdp []byte) []byte {
	if len(sdp) == 0 {
		return nil
	}
	l.sdpVersion++
	var out bytes.Buffer
	for line := range bytes.Lines(sdp) {
		if rest, ok := bytes.CutPrefix(line, []byte("o=")); ok {
			if f := strings.Fields(string(rest)); len(f) == 6 {
				fmt.Fprintf(&out, "o=%s %d %d %s %s %s\r\n", f[0], l.sdpID, l.sdpVersion, f[3], f[4], f[5])
				continue
			}
		}
		out.Write(line)
	}
	return out.Bytes()
}

// setBody puts a description into a message.
func (l *Leg) setBody(m sip.Message, sdp []byte, kind string) {
	if kind == "" || kind == "application/sdp" {
		kind, sdp = "application/sdp", l.describe(sdp)
	}
	if len(sdp) > 0 {
		m.AppendHeader(sip.NewHeader("Content-Type", kind))
	}
	m.SetBody(sdp)
}

// build makes a request of the dialog.
func (l *Leg) build(method sip.RequestMethod, seq uint32) *sip.Request {
	r := l.E.Request(method, l.target, l.Transport, l.nextHop())
	for _, route := range l.routes {
		r.AppendHeader(sip.NewHeader("Route", route))
	}
	from := &sip.FromHeader{DisplayName: l.localName, Address: l.local, Params: sip.NewParams()}
	from.Params.Add("tag", l.localTag)
	to := &sip.ToHeader{DisplayName: l.remoteName, Address: l.remote, Params: sip.NewParams()}
	if l.remoteTag != "" {
		to.Params.Add("tag", l.remoteTag)
	}
	id := sip.CallIDHeader(l.CallID)
	r.AppendHeader(from)
	r.AppendHeader(to)
	r.AppendHeader(&id)
	r.AppendHeader(&sip.CSeqHeader{SeqNo: seq, MethodName: method})
	return r
}

// nextHop is the first route, else the remote target; where that is no address, the place where the dialog began.
func (l *Leg) nextHop() string {
	if l.remoteTag == "" {
		return l.dest
	}
	uri := l.target
	if len(l.routes) > 0 {
		var u sip.Uri
		var p sip.HeaderParams
		if _, err := sip.ParseAddressValue(l.routes[0], &u, &p); err == nil {
			uri = u
		}
	}
	a, err := netip.ParseAddr(uri.Host)
	if err != nil {
		return l.dest
	}
	port := uri.Port
	if port == 0 {
		port = 5060
	}
	return netip.AddrPortFrom(a, uint16(port)).String()
}

// StayWith lets all requests of the dialog go where its first one went: to a mapped address of the off-path mapping service.
func (l *Leg) StayWith() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.target.Host, l.target.Port = "stay.invalid", 0
	if a, err := netip.ParseAddrPort(l.dest); err == nil {
		l.target.Host, l.target.Port = a.Addr().String(), int(a.Port())
	}
}

// learn takes what an answer says of the dialog.
func (l *Leg) learn(res *sip.Response, opening bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if tag, _ := res.To().Params.Get("tag"); tag != "" && opening {
		l.remoteTag = tag
		l.routes = routeSet(res.GetHeaders("Record-Route"))
		slices.Reverse(l.routes)
	}
	if c := res.Contact(); c != nil && (opening || res.IsSuccess()) {
		l.target = c.Address
	}
	if res.IsSuccess() {
		l.allow(res)
	}
	if len(res.Body()) > 0 {
		l.remoteSDP = bytes.Clone(res.Body())
	}
}

// ErrGlare says that an INVITE is under way already.
var ErrGlare = errors.New("an INVITE is under way in this dialog")

// claim takes the dialog for an INVITE.
func (l *Leg) claim() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.busy {
		return ErrGlare
	}
	l.busy = true
	return nil
}

func (l *Leg) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.busy = false
}

// Extra are header lines that a message gets.
type Extra [][2]string

func (x Extra) add(m sip.Message) {
	for _, h := range x {
		m.AppendHeader(sip.NewHeader(h[0], h[1]))
	}
}

// Outgoing is an INVITE under way.
type Outgoing struct {
	Leg       *Leg
	Tx        *sip.ClientTx
	req       *sip.Request
	within    bool // a dialog that stands
	cancelled sync.Once
}

// Invite opens the dialog; ctx bounds the opening of a connection.
func (l *Leg) Invite(ctx context.Context, sdp []byte, kind string, x Extra) (*Outgoing, error) {
	l.mu.Lock()
	l.cseq++
	r := l.build(sip.INVITE, l.cseq)
	l.mu.Unlock()
	r.AppendHeader(l.E.Contact(l.Transport, l.local.User))
	r.AppendHeader(sip.NewHeader("Allow", allow))
	x.add(r)
	l.setBody(r, sdp, kind)
	tx, err := l.E.Send(ctx, r)
	if err != nil {
		return nil, err
	}
	return &Outgoing{Leg: l, Tx: tx, req: r}, nil
}

const allow = "INVITE, ACK, CANCEL, BYE, PRACK, OPTIONS, INFO, UPDATE, REFER, NOTIFY, MESSAGE"

// Learn takes an answer to the INVITE.
func (o *Outgoing) Learn(res *sip.Response) { o.Leg.learn(res, true) }

// Ack acknowledges the 2xx, with an answer where the INVITE had no offer; it is repeated when the 2xx is.
func (o *Outgoing) Ack(sdp []byte) { o.Leg.ack(o.Tx, o.req.CSeq().SeqNo, sdp) }

func (l *Leg) ack(tx *sip.ClientTx, seq uint32, sdp []byte) {
	l.mu.Lock()
	r := l.build(sip.ACK, seq)
	l.setBody(r, sdp, "")
	l.mu.Unlock()
	_ = l.E.write(r) // an ACK that is lost lets the 2xx be repeated
	tx.OnRetransmission(func(*sip.Response) { _ = l.E.write(r.Clone()) })
}

// Cancel gives the INVITE up: CANCEL, and should it be answered all the same ACK, and BYE where it opened the dialog. It returns
// at once.
func (o *Outgoing) Cancel() {
	o.cancelled.Do(func() {
		o.Leg.E.background(o.cancel)
	})
}

func (o *Outgoing) cancel() {
	e := o.Leg.E
	c := e.Request(sip.CANCEL, o.req.Recipient, o.Leg.Transport, o.req.Destination())
	c.ReplaceHeader(o.req.Via().Clone())
	from, to, id := *o.req.From(), *o.req.To(), *o.req.CallID()
	c.AppendHeader(&from)
	c.AppendHeader(&to)
	c.AppendHeader(&id)
	c.AppendHeader(&sip.CSeqHeader{SeqNo: o.req.CSeq().SeqNo, MethodName: sip.CANCEL})
	c.SetBody(nil)
	ctx, done := context.WithTimeout(context.Background(), 5*time.Second)
	defer done()
	_, _ = e.Do(ctx, c) // a far end that is gone answers nothing
	for {
		select {
		case res := <-o.Tx.Responses():
			if res.IsSuccess() {
				o.Leg.learn(res, !o.within)
				o.Ack(nil)
				if !o.within {
					o.Leg.Bye(ctx)
				}
			}
			if !res.IsProvisional() {
				return
			}
		case <-o.Tx.Done():
			return
		case <-ctx.Done():
			o.Tx.Terminate()
			return
		case <-e.closed:
			return
		}
	}
}

// Bye ends the dialog and waits for the answer, or for ctx.
func (l *Leg) Bye(ctx context.Context) {
	_, _ = l.Do(ctx, sip.BYE, nil, "", nil) // ended it is, whatever the other side says
}

// Do sends a request within the dialog (no INVITE) and returns the final answer.
func (l *Leg) Do(ctx context.Context, method sip.RequestMethod, body []byte, kind string, x Extra) (*sip.Response, error) {
	l.mu.Lock()
	l.cseq++
	r := l.build(method, l.cseq)
	if method == sip.UPDATE || method == sip.REFER { // RFC 3311 section 5.1, RFC 3515 section 2.2
		r.AppendHeader(l.E.Contact(l.Transport, l.local.User))
	}
	l.setBody(r, body, kind)
	l.mu.Unlock()
	x.add(r)
	res, err := l.E.Do(ctx, r)
	if err == nil && (method == sip.UPDATE || method == sip.PRACK) && res.IsSuccess() {
		l.learn(res, false)
	}
	return res, err
}

// Reinvite sends an INVITE within the dialog. A 2xx is acknowledged at once where there was an offer; else the caller does that
// with ack. The final answer is returned.
func (l *Leg) Reinvite(ctx context.Context, sdp []byte, kind string, x Extra) (res *sip.Response, ack func(sdp []byte), err error) {
	if err := l.claim(); err != nil {
		return nil, nil, err
	}
	defer l.release()
	l.mu.Lock()
	l.cseq++
	seq := l.cseq
	r := l.build(sip.INVITE, seq)
	l.setBody(r, sdp, kind)
	l.mu.Unlock()
	r.AppendHeader(l.E.Contact(l.Transport, l.local.User))
	r.AppendHeader(sip.NewHeader("Allow", allow))
	x.add(r)
	tx, err := l.E.Send(ctx, r)
	if err != nil {
		return nil, nil, err
	}
	for {
		select {
		case res = <-tx.Responses():
		case <-tx.Done():
			return nil, nil, fmt.Errorf("%w: %w", ErrNoAnswer, tx.Err())
		case <-ctx.Done():
			(&Outgoing{Leg: l, Tx: tx, req: r, within: true}).Cancel()
			return nil, nil, fmt.Errorf("%w: %w", ErrNoAnswer, ctx.Err())
		}
		if res.IsProvisional() {
			continue
		}
		if res.IsSuccess() {
			l.learn(res, false)
			ack = func(answer []byte) { l.ack(tx, seq, answer) }
			if len(sdp) > 0 {
				ack(nil)
			}
		}
		return res, ack, nil
	}
}

// Respond answers a request. A 2xx for an INVITE gets Contact and is repeated over UDP until its ACK.
func (l *Leg) Respond(req *sip.Request, tx *sip.ServerTx, code int, reason string, body []byte, kind string, x Extra) error {
	res := sip.NewResponseFromRequest(req, code, reason, nil)
	if code > 100 {
		to := res.To()
		to.Params.Remove("tag")
		to.Params.Add("tag", l.LocalTag())
	}
	if code > 100 && code < 300 && (req.IsInvite() || req.Method == sip.UPDATE) {
		res.AppendHeader(l.E.Contact(l.Transport, l.local.User))
		res.AppendHeader(sip.NewHeader("Allow", allow))
	}
	x.add(res)
	l.mu.Lock()
	l.setBody(res, body, kind)
	if code/100 != 2 || !req.IsInvite() {
		l.mu.Unlock()
		return tx.Respond(res)
	}
	acked := make(chan struct{})
	l.acked = acked
	l.mu.Unlock()
	if err := tx.Respond(res); err != nil {
		return err
	}
	if l.Transport == "udp" {
		l.E.background(func() { l.repeat(tx, res, acked) })
	}
	return nil
}

// repeat sends a 2xx again until its ACK or 64*T1 (RFC 3261 section 13.3.1.4).
func (l *Leg) repeat(tx *sip.ServerTx, res *sip.Response, acked <-chan struct{}) {
	const t1, t2 = 500 * time.Millisecond, 4 * time.Second
	end := time.NewTimer(64 * t1)
	defer end.Stop()
	for wait := t1; ; wait = min(2*wait, t2) {
		next := time.NewTimer(wait)
		select {
		case <-acked:
		case <-end.C:
		case <-tx.Done():
		case <-l.E.closed:
		case <-next.C:
			_ = tx.Respond(res) // the next one may arrive
			continue
		}
		next.Stop()
		return
	}
}

// Acked takes an ACK for a 2xx.
func (l *Leg) Acked(ack *sip.Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.acked != nil {
		close(l.acked)
		l.acked = nil
	}
	if len(ack.Body()) > 0 {
		l.remoteSDP = bytes.Clone(ack.Body())
	}
}

// Offered takes the description of a re-INVITE or UPDATE, and its Contact.
func (l *Leg) Offered(req *sip.Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(req.Body()) > 0 {
		l.remoteSDP = bytes.Clone(req.Body())
	}
	if c := req.Contact(); c != nil {
		l.target = c.Address
	}
	l.allow(req)
}

// Begin claims the dialog for a re-INVITE from outside; false: one is under way (491). End releases it.
func (l *Leg) Begin() bool { return l.claim() == nil }

// End releases the dialog.
func (l *Leg) End() { l.release() }
