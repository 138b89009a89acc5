package pvp

import (
	"context"
	"crypto/hmac"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/cloudflare/circl/group"

	"imeproxy/ucime/learn"
	"imeproxy/ucime/source"
	"imeproxy/ucime/ticket"
)

// Outcome is how a validation ended.
type Outcome uint8

// Outcomes. Only FailedProof is a failure in the sense of the pools (guide line 298).
const (
	// Unreachable: nothing was learned about the peer's knowledge; the VCR may be tried again, a bounded number of times.
	Unreachable Outcome = iota
	// FailedProof: the peer was asked for a proof and had none.
	FailedProof
	// Refused: the proof was good and there is no route; the VCR is used up.
	Refused
	// Success: the grant is good for a year.
	Success
)

// String names the outcome as logs, counters and show commands do.
func (o Outcome) String() string {
	switch o {
	case FailedProof:
		return "failed proof"
	case Refused:
		return "refused"
	case Success:
		return "success"
	}
	return "unreachable"
}

// Result is what a validation brought.
type Result struct {
	Outcome Outcome
	// Method is the one that proved, 0 where none did.
	Method Method
	// Code says why there is no route, of Refused only.
	Code Code
	// Grant is set with Success only. Its domain has not been held against a trust group.
	Grant *Grant
	// Runs are the OFFERs that were searched.
	Runs int
	// Err says in words why it is no success. It names no facts of the call.
	Err error
}

// Value is what the result adds to a bucket: 12 or 8 of a success, else 0.
func (r Result) Value() int {
	if r.Outcome != Success {
		return 0
	}
	return r.Method.Value()
}

// Errors of Result that callers may want to tell apart.
var (
	// ErrLimit is our own limit of originating validations, in all or with this peer.
	ErrLimit = errors.New("too many originating validations at a time")
	// ErrBusy is the peer's limit.
	ErrBusy = errors.New("the peer has reached a limit")
	// ErrUnusable is a VCR that none of the methods can prove; trying again is of no use.
	ErrUnusable = errors.New("the call record cannot be validated")
	// ErrTarget is our own limit of connections to one host that led to no peer of the ring.
	ErrTarget  = errors.New("too many connections to this host that led to no peer")
	errNoMatch = errors.New("the peer does not know the call")
)

// ClientConfig is what a Client works with. Identity, Own and Domain are mandatory.
type ClientConfig struct {
	Identity Identity
	// Own is our peer ID, one of those that our certificate names.
	Own learn.PeerID
	// Domain is ours, told to peers that have proved.
	Domain   string
	Limits   Limits
	Counters *Counters // may be shared with a Server; made where nil
	// Now is the clock, time.Now where nil. Deadlines of connections are the kernel's.
	Now func() time.Time
	// Dial opens TCP connections, a net.Dialer where nil.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

// Client is the originating side. It may be used by several goroutines.
type Client struct {
	ClientConfig
	tls     *tls.Config
	running counted[learn.PeerID]
	slots   chan struct{}
	workers chan struct{}
	clocks  clocks
	targets *rates[netip.Addr] // connections that led to no peer
}

// shifts are the supposed differences of the clocks, in Units, in the order in which they are tried.
var shifts = [...]int{0, -1, 1}

// try is one run: which difference of the clocks is supposed, and which page of the called number's calls is asked for.
type try struct {
	method Method
	shift  int
	page   uint8
}

// tries are the runs of a validation, three for each method, so that a liar has no more guesses for a busy number than for any other. The difference of the clocks by which
// the peer has proven before goes with all pages. Where it is not known and two methods are tried, the first one has the pages and the second
// the differences; a method alone has the differences, until the peer has proven once.
func tries(methods []Method, known int, ok bool) (out []try) {
	for i, m := range methods {
		if ok && i == 0 || len(methods) > 1 && i == 0 {
			for page := range uint8(pages) {
				out = append(out, try{m, known, page})
			}
			continue
		}
		out = append(out, try{m, known, 0})
		for _, s := range shifts {
			if s != known {
				out = append(out, try{m, s, 0})
			}
		}
	}
	return out
}

// clocks remembers by which difference each peer has proven last.
type clocks struct {
	mu  sync.Mutex // guards m
	cap int
	m   map[learn.PeerID]int
}

func (c *clocks) known(peer learn.PeerID) (shift int, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	shift, ok = c.m[peer]
	return shift, ok
}

// note keeps what a validation has shown: a peer that has failed has perhaps set its clock. At the cap some other peer is forgotten.
func (c *clocks) note(peer learn.PeerID, proven bool, shift int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !proven {
		delete(c.m, peer)
		return
	}
	if _, ok := c.m[peer]; !ok && len(c.m) >= c.cap {
		for other := range c.m {
			delete(c.m, other)
			break
		}
	}
	if c.m == nil {
		c.m = map[learn.PeerID]int{}
	}
	c.m[peer] = shift
}

// NewClient checks the configuration.
func NewClient(c ClientConfig) (*Client, error) {
	if c.Identity == nil || c.Own == (learn.PeerID{}) {
		return nil, errors.New("validation client: identity and own peer ID are mandatory")
	}
	var err error
	if c.Domain, err = ticket.NormalizeDomain(c.Domain); err != nil {
		return nil, fmt.Errorf("validation client: own domain %w", err)
	}
	if c.Limits, err = c.Limits.withDefaults(); err != nil {
		return nil, fmt.Errorf("validation client: %w", err)
	}
	if c.Counters == nil {
		c.Counters = &Counters{}
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Dial == nil {
		c.Dial = (&net.Dialer{}).DialContext
	}
	return &Client{
		ClientConfig: c, tls: tlsConfig(c.Identity, c.Now),
		slots: make(chan struct{}, c.Limits.Originating), workers: make(chan struct{}, c.Limits.Workers), clocks: clocks{cap: c.Limits.TableEntries},
		targets: newRates[netip.Addr](c.Limits.TargetBurst, float64(c.Limits.TargetPerHour)/3600, c.Limits.TableEntries),
	}, nil
}

// Validate asks the server at addr (address:port), which must be peer, to prove that the call of v came to it, by the methods
// in their order, those left out that v cannot be proven by. It counts one validation however many methods are tried.
//
// It blocks for at most Limits.Connection and ends early with ctx, as Unreachable where the caller cancelled it.
func (c *Client) Validate(ctx context.Context, addr string, peer learn.PeerID, v learn.VCR, methods ...Method) Result {
	var usable []Method
	err := errors.New("no method")
	for _, m := range methods {
		if e := Usable(v, m); e != nil {
			err = e
		} else if !slices.Contains(usable, m) {
			usable = append(usable, m)
		}
	}
	if v.Role != learn.Originating {
		usable, err = nil, errors.New("it is of a call that came in")
	}
	if len(usable) == 0 {
		return c.count(Result{Err: fmt.Errorf("%w: %w", ErrUnusable, err)})
	}
	leave, ok := c.enter(peer)
	if !ok {
		c.Counters.BlockedValidationOrigTLSLimit.Add(1)
		return c.count(Result{Err: ErrLimit})
	}
	defer leave()
	c.Counters.ValidationAttempts.Add(1)
	c.Counters.Originating.Add(1)
	defer c.Counters.Originating.Add(-1)

	limited, cancel := context.WithTimeout(ctx, c.Limits.Connection)
	defer cancel()
	conn, err := c.connect(limited, addr, peer)
	if err != nil {
		return c.count(Result{Err: fmt.Errorf("peer at %s: %w", addr, err)})
	}
	defer func() { _ = conn.NetConn().Close() }()
	defer context.AfterFunc(limited, func() { _ = conn.NetConn().Close() })()
	a := &attempt{client: c, conn: conn, peer: peer, vcr: v}
	r := a.validate(limited, usable)
	if r.Outcome == FailedProof && ctx.Err() != nil && errors.Is(context.Cause(ctx), context.Canceled) {
		r.Outcome = Unreachable // the caller gave up before all was tried
	}
	if r.Outcome != Success && r.Err != nil {
		r.Err = fmt.Errorf("peer at %s: %w", addr, r.Err)
	}
	return c.count(r)
}

// enter takes a place among all validations and among those with peer: one that answers slowly must not hold them all.
func (c *Client) enter(peer learn.PeerID) (leave func(), ok bool) {
	if !c.running.enter(peer, c.Limits.PerPeer) {
		return nil, false
	}
	select {
	case c.slots <- struct{}{}:
		return func() { <-c.slots; c.running.leave(peer) }, true
	default:
		c.running.leave(peer)
		return nil, false
	}
}

func (c *Client) count(r Result) Result {
	switch r.Outcome {
	case Success:
		c.Counters.OrigSuccess.Add(1)
	case Refused:
		c.Counters.OrigRefused.Add(1)
	case FailedProof:
		c.Counters.OrigFailed.Add(1)
	default:
		c.Counters.OrigUnreachable.Add(1)
	}
	return r
}

func (c *Client) connect(ctx context.Context, addr string, peer learn.PeerID) (*tls.Conn, error) {
	at, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, fmt.Errorf("no address to connect to: %w", err)
	}
	// Where a peer is, is its own word: whoever claims many numbers at somebody else's address must not have us knock there for each of them.
	host := source.Of(at.Addr())
	if !c.targets.take(host, c.Now()) {
		c.Counters.TargetLimited.Add(1)
		return nil, ErrTarget
	}
	ctx, cancel := context.WithTimeout(ctx, c.Limits.Handshake)
	defer cancel()
	raw, err := c.Dial(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	conf := c.tls.Clone()
	conf.VerifyConnection = func(s tls.ConnectionState) error {
		// Before our certificate goes out: who is not the peer is not told either who asks.
		return c.expect(s, peer)
	}
	conn := tls.Client(raw, conf)
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		return nil, fmt.Errorf("TLS handshake: %w", err)
	}
	c.targets.giveBack(host, 1, c.Now())
	return conn, nil
}

func (c *Client) expect(s tls.ConnectionState, peer learn.PeerID) error {
	if err := verifyPeer(c.Identity, s, c.Now()); err != nil {
		return err
	}
	ids, err := peerIDs(c.Identity, s)
	if err == nil && !slices.Contains(ids, peer) {
		err = errPeerID
	}
	return err
}

// attempt is one validation on the calling side.
type attempt struct {
	client *Client
	conn   *tls.Conn
	peer   learn.PeerID
	vcr    learn.VCR
	runs   int // STARTs sent
	seen   int // OFFERs searched
}

// failed is the result of whatever goes wrong before a match: a peer that has had a guess has failed, even if it cuts
// the connection afterwards.
func (a *attempt) failed(err error) Result {
	if a.seen > 0 {
		return Result{Outcome: FailedProof, Runs: a.seen, Err: err}
	}
	return Result{Outcome: Unreachable, Err: err}
}

func (a *attempt) validate(ctx context.Context, methods []Method) Result {
	exporter, err := binding(a.conn.ConnectionState())
	if err != nil {
		return a.failed(err)
	}
	known, ok := a.client.clocks.known(a.peer)
	for _, t := range tries(methods, known, ok) {
		r, matched := a.run(ctx, t, exporter)
		if matched {
			a.client.clocks.note(a.peer, true, t.shift)
			return r
		}
		if r.Err != nil {
			return r
		}
	}
	a.client.clocks.note(a.peer, false, 0)
	_ = a.conn.SetWriteDeadline(time.Now().Add(a.client.Limits.Frame))
	_ = a.conn.CloseWrite()
	return a.failed(errNoMatch)
}

// run tries one password. It returns an empty result where the peer did not have it.
func (a *attempt) run(ctx context.Context, t try, exporter []byte) (r Result, matched bool) {
	st := &start{method: t.method, page: t.page, selector: Selector(a.vcr.Called), originator: a.client.Own, terminator: a.peer}
	sid := sessionID(exporter, a.runs)
	a.runs++
	sh := newShare(originatorPassword(t.method, a.vcr, t.shift), st.ci(), sid)
	st.public = sh.public
	if err := a.deadline(); err != nil {
		return a.failed(err), false
	}
	if err := writeFrame(a.conn, frameStart, st.encode()); err != nil {
		return a.failed(err), false
	}
	kind, body, err := readFrame(a.conn, frameOffer, frameBusy)
	if err != nil {
		return a.failed(err), false
	}
	if kind == frameBusy {
		return a.failed(ErrBusy), false
	}
	offer, err := decodeOffer(body)
	if err != nil {
		return a.failed(err), false
	}
	points, err := decodePoints(offer)
	if err != nil {
		return a.failed(err), false
	}
	select {
	case a.client.workers <- struct{}{}:
	case <-ctx.Done():
		return a.failed(ctx.Err()), false
	}
	at, keys := search(st, sid, sh, offer, points)
	<-a.client.workers
	a.seen++
	if at < 0 {
		return Result{}, false
	}
	return a.finish(t.method, st, uint8(at), keys), true
}

// decodePoints decodes all points before any is used: a malformed OFFER must not be a way to guess without failing.
func decodePoints(offer *[slots]slot) (*[slots]group.Element, error) {
	var points [slots]group.Element
	for i := range offer {
		var err error
		if points[i], err = decodePoint(offer[i].public[:]); err != nil {
			return nil, fmt.Errorf("OFFER: %w", err)
		}
	}
	return &points, nil
}

// search returns the slot whose tag is right, -1 where none is.
func search(st *start, sid []byte, sh share, offer *[slots]slot, points *[slots]group.Element) (int, *runKeys) {
	ada := st.ada()
	for i := range offer {
		adb := []byte{byte(i)}
		keys := deriveKeys(sid, sh.secret(points[i]), sh.public, ada, offer[i].public, adb)
		if want := keys.tag(offer[i].public, adb); hmac.Equal(want[:shortTag], offer[i].tag[:]) {
			return i, &keys
		}
	}
	return -1, nil
}

func (a *attempt) deadline() error {
	return a.conn.SetDeadline(time.Now().Add(a.client.Limits.Frame))
}

// finish proves our side and takes the answer. From here on the VCR is used up.
func (a *attempt) finish(m Method, st *start, at uint8, keys *runKeys) Result {
	refused := func(code Code, err error) Result {
		return Result{Outcome: Refused, Method: m, Code: code, Runs: a.seen, Err: err}
	}
	ada := st.ada()
	tag := keys.tag(st.public, ada)
	f := finish{slot: at, tag: [longTag]byte(tag[:]), sealed: keys.seal(directionRequest, frameFinish, ada, encodeRequest(a.client.Domain))}
	if err := a.deadline(); err != nil {
		return refused(CodeLost, err)
	}
	if err := writeFrame(a.conn, frameFinish, f.encode()); err != nil {
		return refused(CodeLost, err)
	}
	_, body, err := readFrame(a.conn, frameAnswer)
	if err != nil {
		return refused(CodeLost, fmt.Errorf("no answer after the proof: %w", err))
	}
	plain, err := keys.open(directionAnswer, frameAnswer, ada, body)
	if err != nil {
		return refused(CodeBadAnswer, fmt.Errorf("answer: %w", err))
	}
	code, grant, err := decodeAnswer(plain)
	if err != nil {
		return refused(CodeBadAnswer, fmt.Errorf("answer: %w", err))
	}
	if code != CodeGranted {
		return refused(code, fmt.Errorf("the peer says: %v", code))
	}
	if err := checkGrant(grant, a.client.Domain, a.vcr.Called, a.peer, a.client.Now()); err != nil {
		return refused(CodeBadAnswer, err)
	}
	return Result{Outcome: Success, Method: m, Grant: grant, Runs: a.seen}
}
