package uplink

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"imeproxy/ucime/callagent/config"
	"imeproxy/ucime/callagent/records"
	"imeproxy/ucime/learn"
	"imeproxy/ucime/vap"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	patience = 20 * time.Second
	user     = "vapuser"
	password = "correct-horse-battery"
)

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("it does not become true that %s", what)
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// behind stands behind a VAP server, as the peer server's rooms do. It outlives the server.
type behind struct {
	mu        sync.Mutex
	published map[vap.ServiceID]vap.Publication
	stored    []learn.VCR
	pending   []vap.Notification
	rejected  []uint64
	busy      error // of Published
	full      error // of StoreVCRs
	wrong     learn.Number
	gate      chan struct{} // StoreVCRs stores and then waits for it
}

func (b *behind) Published(_ context.Context, p vap.Publication) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.busy == nil {
		b.published[p.Key.Service] = p
	}
	return b.busy
}

func (b *behind) Unpublished(_ context.Context, k vap.Key) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.published, k.Service)
}

func (b *behind) StoreVCRs(ctx context.Context, _ vap.Key, all []learn.VCR) error {
	b.mu.Lock()
	gate := b.gate
	err := b.full
	for _, v := range all {
		if v.Called == b.wrong {
			err = &vap.Error{Code: vap.CodeBadRequest}
		}
	}
	if err == nil {
		for _, v := range all {
			if !slices.Contains(b.stored, v) {
				b.stored = append(b.stored, v)
			}
		}
	}
	b.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
		}
	}
	return err
}

func (b *behind) Pending(_ context.Context, k vap.Key, after uint64, limit int) (out []vap.Notification, _ error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, n := range b.pending {
		if n.ID > after && len(out) < limit {
			n.Service = k.Service
			out = append(out, n)
		}
	}
	return out, nil
}

func (b *behind) Settle(_ context.Context, _ vap.Key, id uint64, accepted bool) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	i := slices.IndexFunc(b.pending, func(n vap.Notification) bool { return n.ID == id })
	if i < 0 {
		return errors.New("settled twice")
	}
	b.pending = slices.Delete(b.pending, i, i+1)
	if !accepted {
		b.rejected = append(b.rejected, id)
	}
	return nil
}

// do changes something of it.
func (b *behind) do(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f()
}

func (b *behind) has(v ...learn.VCR) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return !slices.ContainsFunc(v, func(v learn.VCR) bool { return !slices.Contains(b.stored, v) })
}

func (b *behind) service(id vap.ServiceID) (vap.Publication, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p, ok := b.published[id]
	return p, ok
}

// peerServer is a VAP server that can be stopped and started at its address.
type peerServer struct {
	t *testing.T
	*behind
	at  string
	tls *tls.Config
	key vap.UserKey
	srv *vap.Server

	Quota uint32
}

func newPeerServer(t *testing.T, ip string) *peerServer {
	t.Helper()
	key, err := vap.DeriveUserKey(user, password)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", ip+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return &peerServer{t: t, behind: &behind{published: map[vap.ServiceID]vap.Publication{}}, at: l.Addr().String(), key: key, Quota: 5000}
}

func (p *peerServer) start() *peerServer {
	p.t.Helper()
	p.srv = vap.NewServer(vap.ServerConfig{Handler: p.behind, Quota: p.Quota, Log: quiet()})
	p.t.Cleanup(p.srv.Close)
	if err := p.srv.Apply([]vap.Instance{{Name: "v", Addr: p.at, TLS: p.tls, Credentials: vap.Users{user: p.key}}}); err != nil {
		p.t.Fatal(err)
	}
	return p
}

// block is the configuration's.
func (p *peerServer) block(name, more string) string {
	host, port, _ := net.SplitHostPort(p.at)
	return fmt.Sprintf("ime-server %s\n address %s port %s\n application-user %s\n password %s\n reconnect-interval 1\n%s", name, host, port, user, password, more)
}

const base = `pbx p
 listen udp 127.0.0.1
 peer udp 127.0.0.2
pstn-trunk t
 listen udp 127.0.0.1 port 5080
 peer udp 127.0.0.3
ime-trunk i
 listen tcp 127.0.0.1 port 5070
enrolled-group g
 pattern +14085551XXX
 pattern +14085552000
exclusion-group x
 number +14085551999
trust-group f trusted
 domain b.example
 prefix +4930!
`

// parse makes a configuration whose service has more lines.
func parse(t *testing.T, service string, blocks ...string) *config.Config {
	t.Helper()
	text := base + "service main\n domain a.example\n enrolled-group g\n exclusion-group x\n trust-group f\n" + service
	for _, b := range blocks {
		text += b
	}
	cfg, err := config.Parse("test.cfg", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

const activated = " activated\n primary-server one\n"

// agent is what the link belongs to.
type agent struct {
	t     *testing.T
	dir   string
	q     *records.Queue
	l     *Link
	mu    sync.Mutex
	fail  error
	left  int // refused of each notification
	known []learn.Route
	gone  []learn.Number
	alert map[string]string
}

func newAgent(t *testing.T, dir string) *agent {
	t.Helper()
	a := &agent{t: t, dir: dir, alert: map[string]string{}}
	var err error
	if a.q, err = records.Open(dir, 1000); err != nil {
		t.Fatal(err)
	}
	a.l = New(Options{Log: quiet(), Records: a.q, Store: a.store, Alert: a.raise})
	t.Cleanup(a.close)
	return a
}

func (a *agent) close() {
	a.l.Close()
	a.q.Close()
}

func (a *agent) store(_ string, routes []learn.Route, withdrawn []learn.Number) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.fail == nil {
		a.known, a.gone = append(a.known, routes...), append(a.gone, withdrawn...)
	}
	return a.left, a.fail
}

func (a *agent) raise(name, detail string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if detail == "" {
		delete(a.alert, name)
		return
	}
	a.alert[name] = detail
}

func (a *agent) standing(name string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.alert[name]
}

func (a *agent) put(vcrs ...learn.VCR) {
	a.t.Helper()
	for _, v := range vcrs {
		if err := a.q.Put(v); err != nil {
			a.t.Fatal(err)
		}
	}
}

func (a *agent) apply(cfg *config.Config) {
	a.t.Helper()
	if err := a.l.Apply(cfg); err != nil {
		a.t.Fatal(err)
	}
}

func (a *agent) waiting() int {
	n, _ := a.q.Counts()
	return n
}

func vcr(role learn.Role, called learn.Number) learn.VCR {
	at := time.Date(2026, 11, 27, 10, 0, 0, 123e6, time.UTC)
	return learn.VCR{Role: role, Called: called, Caller: "+14085551111", Start: at, Stop: at.Add(time.Minute)}
}
