package testbed

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// SignalLoad plays both ends of many calls through one edge, that of enterprise A: the far enterprise, which calls over mutual TLS, and the
// call agent, which takes the calls over TCP. It is made to cost little: messages are cut and pasted, not understood.
type SignalLoad struct {
	lab    *Lab
	ticket string
	id     *Identity
	target string
	agent  net.Listener

	mu    sync.Mutex // guards what follows
	conns []*loadConn
	taken []net.Conn // at the call agent
	calls map[int]*loadCall
	byes  []*loadCall // in the order in which they are due
	run   *SignalRun
	next  int
	wg    sync.WaitGroup
}

// loadCall is one call from its INVITE to the answer of its BYE.
type loadCall struct {
	number int
	conn   *loadConn
	sent   time.Time
	due    time.Time // of its BYE
	bye    []byte
	ok     bool // answered
}

// SignalRun is one run of calls at a rate.
type SignalRun struct {
	Rate, Calls int
	// Hold is how long an answered call stands; negative: until the load is closed.
	Hold time.Duration

	// What came of it. Late is how far the load itself fell behind.
	Answered, Ended, Refused atomic.Int64
	Elapsed, Late            time.Duration
	delays                   []time.Duration
}

// Failed counts the calls that were not answered, or not ended where they should have been.
func (r *SignalRun) Failed() int {
	done := r.Ended.Load()
	if r.Hold < 0 {
		done = r.Answered.Load()
	}
	return r.Calls - int(done)
}

// Delay is a quantile of the time from an INVITE to its 200.
func (r *SignalRun) Delay(q float64) time.Duration {
	if len(r.delays) == 0 {
		return 0
	}
	return r.delays[min(int(q*float64(len(r.delays))), len(r.delays)-1)]
}

// NewSignalLoad starts the call agent of a lab with Options.Direct and NoCallAgents.
func NewSignalLoad(t T, l *Lab) *SignalLoad {
	t.Helper()
	g := &SignalLoad{lab: l, target: netip.AddrPortFrom(l.A.Mapped, TrunkPort).String(), calls: make(map[int]*loadCall)}
	var err error
	if g.id, err = l.CA.Issue("load", EdgeCert(l.B.Domain)); err != nil {
		t.Fatalf("%v", err)
	}
	g.ticket = IssueTicket(t, TicketSpec{
		Password: l.A.TicketPassword, Epoch: l.A.TicketEpoch, Dir: l.Dir, OwnDomain: l.A.Domain, GrantedTo: l.B.Domain, Numbers: []string{l.A.Number},
	})
	if g.agent, err = l.A.UCMHost.Listen(netip.AddrPortFrom(l.A.UCMIP, TrunkPort).String()); err != nil {
		t.Fatalf("%v", err)
	}
	g.wg.Go(g.accept)
	l.onClose(g.Close)
	return g
}

// Close ends all connections.
func (g *SignalLoad) Close() {
	g.agent.Close()
	g.mu.Lock()
	for _, c := range g.conns {
		c.raw.Close()
	}
	for _, c := range g.taken {
		c.Close()
	}
	g.mu.Unlock()
	g.wg.Wait()
}

// Connect opens TLS connections until there are n.
func (g *SignalLoad) Connect(t T, n int) {
	t.Helper()
	for len(g.conns) < n {
		raw, err := g.lab.B.EdgeHost.Dial("tcp", g.lab.B.Mapped.String(), g.target, 5*time.Second)
		if err != nil {
			t.Fatalf("connection %d of the load: %v", len(g.conns)+1, err)
		}
		c := tls.Client(raw, g.lab.CA.TLSConfig(g.id, g.lab.A.Domain))
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		if err := c.Handshake(); err != nil {
			t.Fatalf("connection %d of the load: %v", len(g.conns)+1, err)
		}
		_ = c.SetDeadline(time.Time{})
		k := &loadConn{Conn: c, raw: raw}
		g.mu.Lock()
		g.conns = append(g.conns, k)
		g.mu.Unlock()
		g.wg.Go(func() { k.read(func(m []byte, out []byte) []byte { return g.response(k, m, out) }) })
	}
}

// Run places calls at an even pace over all connections, and returns when they have ended or nothing has come for three seconds.
func (g *SignalLoad) Run(t T, r *SignalRun) *SignalRun {
	t.Helper()
	g.mu.Lock()
	g.run, g.byes = r, nil
	clear(g.calls)
	g.mu.Unlock()
	begin := time.Now()
	placed, before, quiet := 0, int64(-1), begin
	for r.Failed() > 0 {
		now := time.Now()
		due := min(int(now.Sub(begin).Seconds()*float64(r.Rate)), r.Calls)
		if due > placed {
			r.Late = max(r.Late, now.Sub(begin)-time.Duration(placed)*time.Second/time.Duration(r.Rate))
			g.place(due - placed)
			placed = due
			r.Elapsed = time.Since(begin)
		}
		g.hangUp(now)
		if n := r.Answered.Load() + r.Ended.Load() + r.Refused.Load(); n != before || placed < r.Calls {
			before, quiet = n, now
		} else if now.Sub(quiet) > 3*time.Second+max(r.Hold, 0) {
			break
		}
		time.Sleep(time.Millisecond)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	slices.Sort(r.delays)
	return r
}

// place sends INVITEs, those of one connection together.
func (g *SignalLoad) place(n int) {
	g.mu.Lock()
	batch := make(map[*loadConn][]byte)
	for range n {
		g.next++
		k := g.conns[g.next%len(g.conns)]
		g.calls[g.next] = &loadCall{number: g.next, conn: k, sent: time.Now()}
		batch[k] = g.invite(batch[k], g.next)
	}
	g.mu.Unlock()
	for k, b := range batch {
		k.send(b)
	}
}

// hangUp sends the BYEs that are due.
func (g *SignalLoad) hangUp(now time.Time) {
	g.mu.Lock()
	batch := make(map[*loadConn][]byte)
	n := 0
	for ; n < len(g.byes) && !now.Before(g.byes[n].due); n++ {
		c := g.byes[n]
		batch[c.conn] = append(batch[c.conn], c.bye...)
		c.bye = nil
	}
	g.byes = g.byes[n:]
	g.mu.Unlock()
	for k, b := range batch {
		k.send(b)
	}
}

const loadKey = "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz\r\n"

func loadSDP(addr netip.Addr, number int, secure bool) string {
	proto, key := "AVP", ""
	if secure {
		proto, key = "SAVP", loadKey
	}
	return fmt.Sprintf("v=0\r\no=- 53655765 2353687637 IN IP4 %s\r\ns=-\r\nc=IN IP4 %s\r\nt=0 0\r\nm=audio %d RTP/%s 0\r\na=rtpmap:0 PCMU/8000\r\n%s",
		addr, addr, 20000+2*(number%10000), proto, key)
}

func (g *SignalLoad) invite(b []byte, number int) []byte {
	a, far := g.lab.A, g.lab.B
	body := loadSDP(far.MediaOut, number, true)
	return fmt.Appendf(b, "INVITE sip:%s@%s SIP/2.0\r\nVia: SIP/2.0/TLS %s:%d;branch=z9hG4bK-i-%d\r\nMax-Forwards: 70\r\nFrom: <sip:%s@%s>;tag=f%d\r\nTo: <sip:%s@%s>\r\n"+
		"Call-ID: %d@load\r\nCSeq: 1 INVITE\r\nContact: <sip:%s@%s:%d;transport=tls>\r\nX-Cisco-UC-IME-Ticket: %s\r\nContent-Type: application/sdp\r\nContent-Length: %d\r\n\r\n%s",
		a.Number, a.Domain, far.Mapped, TrunkPort, number, far.Number, far.Domain, number, a.Number, a.Domain, number, far.Number, far.Mapped, TrunkPort, g.ticket, len(body), body)
}

// response takes an answer at the caller's end.
func (g *SignalLoad) response(k *loadConn, m, out []byte) []byte {
	if !bytes.HasPrefix(m, []byte("SIP/2.0 ")) || m[8] == '1' {
		return out
	}
	id, _, _ := bytes.Cut(loadHeader(m, "Call-ID"), []byte("@"))
	number, err := strconv.Atoi(string(id))
	g.mu.Lock()
	defer g.mu.Unlock()
	c, r := g.calls[number], g.run
	if err != nil || c == nil {
		return out
	}
	if bytes.HasSuffix(loadHeader(m, "CSeq"), []byte("BYE")) {
		delete(g.calls, number)
		r.Ended.Add(1)
		return out
	}
	if m[8] != '2' {
		r.Refused.Add(1)
		return out
	}
	if c.ok {
		return out
	}
	c.ok = true
	r.delays = append(r.delays, time.Since(c.sent))
	r.Answered.Add(1)
	if r.Hold >= 0 {
		c.bye, c.due = g.inDialog(nil, "BYE", 2, number, m), time.Now().Add(r.Hold)
		g.byes = append(g.byes, c)
	}
	return g.inDialog(out, "ACK", 1, number, m)
}

// inDialog makes a request within the dialog of a 200.
func (g *SignalLoad) inDialog(b []byte, method string, cseq, number int, ok []byte) []byte {
	target := loadHeader(ok, "Contact")
	if i, j := bytes.IndexByte(target, '<'), bytes.IndexByte(target, '>'); i >= 0 && j > i {
		target = target[i+1 : j]
	}
	b = fmt.Appendf(b, "%s %s SIP/2.0\r\nVia: SIP/2.0/TLS %s:%d;branch=z9hG4bK-%s-%d\r\nMax-Forwards: 70\r\n", method, target, g.lab.B.Mapped, TrunkPort, method, number)
	routes := loadHeaders(ok, "Record-Route")
	for _, r := range slices.Backward(routes) {
		b = fmt.Appendf(b, "Route: %s\r\n", r)
	}
	return fmt.Appendf(b, "From: %s\r\nTo: %s\r\nCall-ID: %d@load\r\nCSeq: %d %s\r\nContent-Length: 0\r\n\r\n", loadHeader(ok, "From"), loadHeader(ok, "To"), number, cseq, method)
}

// accept takes the edge's connections to the call agent.
func (g *SignalLoad) accept() {
	for {
		c, err := g.agent.Accept()
		if err != nil {
			return
		}
		g.mu.Lock()
		g.taken = append(g.taken, c)
		g.mu.Unlock()
		k := &loadConn{Conn: c, raw: c}
		g.wg.Go(func() { k.read(g.answer) })
	}
}

// answer is the call agent: it rings, and takes every call.
func (g *SignalLoad) answer(m, out []byte) []byte {
	method, _, _ := bytes.Cut(m, []byte(" "))
	switch string(method) {
	case "INVITE":
		id, _, _ := bytes.Cut(loadHeader(m, "Call-ID"), []byte("@"))
		number, _ := strconv.Atoi(string(id))
		out = g.reply(out, "180 Ringing", m, "")
		return g.reply(out, "200 OK", m, loadSDP(g.lab.A.PhoneIP, number, false))
	case "BYE":
		return g.reply(out, "200 OK", m, "")
	}
	return out
}

func (g *SignalLoad) reply(b []byte, status string, m []byte, body string) []byte {
	b = append(append(append(b, "SIP/2.0 "...), status...), "\r\n"...)
	for _, name := range []string{"Via", "Record-Route", "From", "Call-ID", "CSeq"} {
		for _, v := range loadHeaders(m, name) {
			b = append(append(append(append(b, name...), ": "...), v...), "\r\n"...)
		}
	}
	to := loadHeader(m, "To")
	b = append(append(b, "To: "...), to...)
	if !bytes.Contains(to, []byte("tag=")) {
		b = append(b, ";tag=agent"...)
	}
	if b = append(b, "\r\n"...); body != "" {
		b = append(b, "Content-Type: application/sdp\r\n"...)
	}
	return fmt.Appendf(b, "Contact: <sip:%s:%d;transport=tcp>\r\nContent-Length: %d\r\n\r\n%s", g.lab.A.UCMIP, TrunkPort, len(body), body)
}

// loadHeader gives the first value of a header, spelt as here or not at all.
func loadHeader(m []byte, name string) []byte {
	if all := loadHeaders(m, name); len(all) > 0 {
		return all[0]
	}
	return nil
}

func loadHeaders(m []byte, name string) (out [][]byte) {
	key := append(append([]byte("\r\n"), name...), ':')
	for {
		i := bytes.Index(m, key)
		if i < 0 {
			return out
		}
		m = m[i+len(key):]
		line, _, _ := bytes.Cut(m, []byte("\r\n"))
		out = append(out, bytes.TrimSpace(line))
	}
}

// loadConn is one connection of the load.
type loadConn struct {
	net.Conn
	raw net.Conn // without TLS
	mu  sync.Mutex
}

func (k *loadConn) send(b []byte) {
	if len(b) == 0 {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	_, _ = k.Write(b) // a connection that is lost shows as calls that fail
}

// read hands each message over, and sends what comes of all that one read gave.
func (k *loadConn) read(each func(m, out []byte) []byte) {
	var have, out []byte
	buf := make([]byte, 16<<10)
	for {
		n, err := k.Read(buf)
		if err != nil {
			return
		}
		have = append(have, buf[:n]...)
		out = out[:0]
		rest := have
		for {
			end := bytes.Index(rest, []byte("\r\n\r\n"))
			if end < 0 {
				break
			}
			size, _ := strconv.Atoi(string(loadHeader(rest[:end+2], "Content-Length")))
			if end += 4 + size; end > len(rest) {
				break
			}
			out = each(rest[:end], out)
			rest = rest[end:]
		}
		have = append(have[:0], rest...)
		k.send(out)
	}
}
