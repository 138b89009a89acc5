package leg

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/emiago/sipgo/sip"
	"golang.org/x/net/netutil"

	"imeproxy/ucime/callagent/config"
)

const (
	maximumConnections = 1024
	maximumStrangers   = 1024 // UDP addresses that are not the peer's: sipgo keeps each for as long as the endpoint is open
	writeTimeout       = 2 * time.Second
)

// Handler takes a request; ACKs for a 2xx come here too, with tx nil.
type Handler func(e *Endpoint, req *sip.Request, tx *sip.ServerTx)

// Endpoint is a trunk's end here.
type Endpoint struct {
	Name   string
	known  func(netip.Addr) bool // the peer
	tp     *sip.TransportLayer
	tcp    *sip.TransportTCP
	txl    *sip.TransactionLayer
	local  map[string]netip.AddrPort
	socks  []io.Closer
	serve  sync.WaitGroup // the sockets' readers
	closed chan struct{}

	mu      sync.Mutex
	closing bool           // nothing begins any more
	work    sync.WaitGroup // handlers and senders

	smu       sync.Mutex // guards what follows
	sources   map[netip.AddrPort]bool
	strangers int
}

// Listen opens the sockets of an endpoint and serves them. Known tells the peer's addresses, of which any number of ports may send by UDP; of
// all others, 1,024 may, and more get no answer. Nil takes everybody for the peer.
func Listen(name string, at []config.Listener, known func(netip.Addr) bool, log *slog.Logger, handle Handler) (*Endpoint, error) {
	e := &Endpoint{Name: name, known: known, local: make(map[string]netip.AddrPort), closed: make(chan struct{}), sources: make(map[netip.AddrPort]bool)}
	quiet := slog.New(levelled{log.Handler(), slog.LevelError + 1}) // sipgo tells of peers' mistakes as errors: they are no news
	silence.Do(func() { sip.SetDefaultLogger(quiet) })
	e.tcp = &sip.TransportTCP{WriteTimeout: writeTimeout, DialerCreate: e.dialer}
	e.tp = sip.NewTransportLayer(net.DefaultResolver, sip.NewParser(), nil, sip.WithTransportLayerLogger(quiet), sip.WithTransportLayerReadFilter(e.reads),
		sip.WithTransportLayerTransports(sip.TransportsConfig{TCP: e.tcp}))
	e.txl = sip.NewTransactionLayer(e.tp, sip.WithTransactionLayerLogger(quiet), sip.WithTransactionLayerTerminateOnConnClose(),
		sip.WithTransactionLayerUnhandledResponseHandler(func(*sip.Response) {}))
	e.txl.OnRequest(func(req *sip.Request, tx *sip.ServerTx) { e.request(req, tx, handle) })
	for _, l := range at {
		if err := e.listen(l); err != nil {
			e.Close()
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return e, nil
}

// levelled lets a library tell of what is at least this bad.
type levelled struct {
	slog.Handler
	least slog.Level
}

func (l levelled) Enabled(_ context.Context, level slog.Level) bool { return level >= l.least }

// dialer makes the dialer of a request of ours, which names its local address. What has none is a response whose connection is gone: it must
// not go where the request's Via says, which the sender chose.
func (e *Endpoint) dialer(laddr net.Addr) net.Dialer {
	d := net.Dialer{Timeout: 5 * time.Second, LocalAddr: laddr}
	if a, ok := laddr.(*net.TCPAddr); !ok || a == nil {
		d.Control = func(string, string, syscall.RawConn) error { return net.ErrClosed }
	}
	return d
}

// packets is a UDP socket as sipgo sees it.
type packets struct {
	net.PacketConn
	once    sync.Once
	reading chan struct{} // closed when it is read from for the first time: sipgo knows the socket then
	ended   func()        // called when nothing more can be read, before sipgo learns of it
}

// ReadFrom reads.
func (p *packets) ReadFrom(b []byte) (int, net.Addr, error) {
	p.once.Do(func() { close(p.reading) })
	n, from, err := p.PacketConn.ReadFrom(b)
	if err != nil {
		p.ended()
	}
	return n, from, err
}

// gone is the connection to an address when the endpoint has closed. A request that came last may still look for its connection, and where
// there is none sipgo opens a socket that nobody closes.
type gone struct{ net.Addr }

func (g gone) LocalAddr() net.Addr        { return g.Addr }
func (g gone) WriteMsg(sip.Message) error { return net.ErrClosed }
func (g gone) Ref(int) int                { return 1 }
func (g gone) TryClose() (int, error)     { return 1, nil }
func (g gone) Close() error               { return nil }

// silence keeps sipgo's own log, which is one for the whole process, to what is worse than a peer's mistake.
var silence sync.Once

func (e *Endpoint) listen(l config.Listener) error {
	if l.Transport == "udp" {
		c, err := net.ListenPacket("udp4", l.Addr.String())
		if err != nil {
			return err
		}
		e.local[l.Transport] = c.LocalAddr().(*net.UDPAddr).AddrPort()
		e.socks = append(e.socks, c)
		serving := &packets{PacketConn: c, reading: make(chan struct{}), ended: func() { e.leave(c.LocalAddr()) }}
		e.serve.Go(func() { _ = e.tp.ServeUDP(serving) })
		<-serving.reading // a request before that would open a socket of its own
		return nil
	}
	c, err := net.Listen("tcp4", l.Addr.String())
	if err != nil {
		return err
	}
	e.local[l.Transport] = c.Addr().(*net.TCPAddr).AddrPort()
	c = netutil.LimitListener(c, maximumConnections)
	e.socks = append(e.socks, c)
	e.serve.Go(func() { _ = e.tp.ServeTCP(c) })
	return nil
}

// Local is where the endpoint listens by a transport.
func (e *Endpoint) Local(transport string) netip.AddrPort { return e.local[transport] }

// request sorts requests: a transaction for an ACK is no transaction.
func (e *Endpoint) request(req *sip.Request, tx *sip.ServerTx, handle Handler) {
	if !e.enter() {
		tx.Terminate()
		return
	}
	defer e.work.Done()
	if req.From() == nil || req.To() == nil || req.CallID() == nil || req.CSeq() == nil || req.Via() == nil {
		_ = tx.Respond(sip.NewResponseFromRequest(req, 400, "Bad Request", nil))
		return
	}
	if req.IsAck() {
		tx.Terminate()
		handle(e, req, nil)
		return
	}
	if req.IsInvite() {
		e.background(func() { // an ACK that has the branch of its INVITE, as some send it
			for {
				select {
				case ack := <-tx.Acks():
					handle(e, ack, nil)
				case <-tx.Done():
					return
				case <-e.closed:
					return
				}
			}
		})
	}
	handle(e, req, tx)
}

// enter begins work that Close waits for; false: the endpoint closes. A request that were sent without its socket would open
// another one.
func (e *Endpoint) enter() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closing {
		return false
	}
	e.work.Add(1)
	return true
}

// reads lets nothing in once the endpoint closes, and no more strangers than it may.
func (e *Endpoint) reads(p sip.TransportReadProps, data []byte) ([]byte, error) {
	select {
	case <-e.closed:
		return nil, nil
	default:
	}
	if from, ok := p.RemoteAddr.(*net.UDPAddr); ok && !e.source(from.AddrPort()) {
		return nil, nil
	}
	return data, nil
}

// source notes a UDP sender; false: it is one stranger too many.
func (e *Endpoint) source(from netip.AddrPort) bool {
	e.smu.Lock()
	defer e.smu.Unlock()
	if e.sources[from] {
		return true
	}
	if e.known != nil && !e.known(from.Addr().Unmap()) {
		if e.strangers >= maximumStrangers {
			return false
		}
		e.strangers++
	}
	e.sources[from] = true
	return true
}

// leave lets every address that has sent lead nowhere.
func (e *Endpoint) leave(local net.Addr) {
	e.smu.Lock()
	defer e.smu.Unlock()
	for from := range e.sources {
		e.tp.Pool("udp").Add(net.UDPAddrFromAddrPort(from).String(), gone{local})
	}
}

// background runs f, unless the endpoint closes.
func (e *Endpoint) background(f func()) {
	if e.enter() {
		go func() {
			defer e.work.Done()
			f()
		}()
	}
}

// Close ends all transactions, waits for their handlers and closes all sockets.
func (e *Endpoint) Close() {
	e.mu.Lock()
	e.closing = true
	e.mu.Unlock()
	close(e.closed)
	e.txl.Close()
	e.work.Wait()
	for _, s := range e.socks {
		_ = s.Close()
	}
	e.serve.Wait()
	_ = e.tcp.Close() // after the listeners: no connection comes after this
}

// Request makes a request that goes to dest by a transport of this endpoint.
func (e *Endpoint) Request(method sip.RequestMethod, uri sip.Uri, transport string, dest string) *sip.Request {
	r := sip.NewRequest(method, uri)
	at := e.local[transport]
	upper := strings.ToUpper(transport)
	via := &sip.ViaHeader{ProtocolName: "SIP", ProtocolVersion: "2.0", Transport: upper, Host: at.Addr().String(), Port: int(at.Port()), Params: sip.NewParams()}
	via.Params.Add("branch", sip.GenerateBranch())
	if transport == "udp" {
		via.Params.Add("rport", "")
		r.Laddr = sip.Addr{IP: at.Addr().AsSlice(), Port: int(at.Port())}
	} else {
		r.Laddr = sip.Addr{IP: at.Addr().AsSlice()}
	}
	r.AppendHeader(via)
	hops := sip.MaxForwardsHeader(70)
	r.AppendHeader(&hops)
	r.SetTransport(upper)
	r.SetDestination(dest)
	return r
}

// Contact is this endpoint's own.
func (e *Endpoint) Contact(transport, user string) *sip.ContactHeader {
	at := e.local[transport]
	c := &sip.ContactHeader{Address: sip.Uri{Scheme: "sip", User: user, Host: at.Addr().String(), Port: int(at.Port()), UriParams: sip.NewParams()}}
	if transport != "udp" {
		c.Address.UriParams.Add("transport", transport)
	}
	return c
}

// Send begins a client transaction; ctx bounds the opening of a connection alone.
func (e *Endpoint) Send(ctx context.Context, r *sip.Request) (*sip.ClientTx, error) {
	if !e.enter() {
		return nil, net.ErrClosed
	}
	defer e.work.Done()
	return e.txl.Request(ctx, r)
}

// ErrNoAnswer says that nothing came in time, or that the connection ended before an answer.
var ErrNoAnswer = errors.New("no answer")

// Do sends a request and waits for its final answer.
func (e *Endpoint) Do(ctx context.Context, r *sip.Request) (*sip.Response, error) {
	tx, err := e.Send(ctx, r)
	if err != nil {
		return nil, err
	}
	defer func() {
		if !r.IsInvite() {
			tx.Terminate()
		}
	}()
	for {
		select {
		case res := <-tx.Responses():
			if !res.IsProvisional() {
				return res, nil
			}
		case <-tx.Done():
			select {
			case res := <-tx.Responses():
				if !res.IsProvisional() {
					return res, nil
				}
			default:
			}
			return nil, fmt.Errorf("%w: %w", ErrNoAnswer, tx.Err())
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", ErrNoAnswer, ctx.Err())
		}
	}
}

// write sends an ACK.
func (e *Endpoint) write(r *sip.Request) error {
	if !e.enter() {
		return net.ErrClosed
	}
	defer e.work.Done()
	return e.tp.WriteMsg(r)
}
