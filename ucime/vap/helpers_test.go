package vap

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"imeproxy/ucime/learn"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 20 * time.Second // how long a test waits for what should take milliseconds

// fakeClock stands still until a test advances it.
type fakeClock struct {
	mu     sync.Mutex
	now    time.Time
	timers map[*fakeTimer]struct{}
}

type fakeTimer struct {
	at time.Time
	d  time.Duration
	f  func()
}

func newFakeClock() *fakeClock {
	return &fakeClock{now: time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC), timers: map[*fakeTimer]struct{}{}}
}

func (c *fakeClock) clock() Clock {
	return Clock{
		Now: func() time.Time {
			c.mu.Lock()
			defer c.mu.Unlock()
			return c.now
		},
		After: func(d time.Duration, f func()) func() bool {
			c.mu.Lock()
			defer c.mu.Unlock()
			t := &fakeTimer{c.now.Add(d), d, f}
			c.timers[t] = struct{}{}
			return func() bool {
				c.mu.Lock()
				defer c.mu.Unlock()
				_, there := c.timers[t]
				delete(c.timers, t)
				return there
			}
		},
	}
}

// advance lets time pass; timers run in their order, each at its time.
func (c *fakeClock) advance(d time.Duration) {
	c.mu.Lock()
	end := c.now.Add(d)
	for {
		var next *fakeTimer
		for t := range c.timers {
			if !t.at.After(end) && (next == nil || t.at.Before(next.at)) {
				next = t
			}
		}
		if next == nil {
			break
		}
		delete(c.timers, next)
		c.now = next.at
		c.mu.Unlock()
		next.f()
		c.mu.Lock()
	}
	c.now = end
	c.mu.Unlock()
}

// armed counts timers of a duration.
func (c *fakeClock) armed(d time.Duration) (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for t := range c.timers {
		if t.d == d {
			n++
		}
	}
	return n
}

// eventually waits until ok, by looking again and again.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

// memory is a handler that keeps all in memory. Its lists survive a server, as a store would.
type memory struct {
	mu       sync.Mutex
	pubs     map[Key]Publication
	events   []string
	vcrs     map[Key][]learn.VCR
	pending  map[Key][]Notification
	accepted []uint64
	rejected []uint64
	fail     error // of Published and StoreVCRs
	gate     chan struct{}
}

func newMemory() *memory {
	return &memory{pubs: map[Key]Publication{}, vcrs: map[Key][]learn.VCR{}, pending: map[Key][]Notification{}}
}

func (m *memory) Published(_ context.Context, p Publication) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return m.fail
	}
	m.pubs[p.Key] = p
	m.events = append(m.events, "published "+p.Service.Name)
	return nil
}

func (m *memory) Unpublished(_ context.Context, key Key) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.events = append(m.events, "unpublished "+m.pubs[key].Service.Name)
	delete(m.pubs, key)
}

func (m *memory) StoreVCRs(_ context.Context, key Key, vcrs []learn.VCR) error {
	m.mu.Lock()
	gate := m.gate
	m.mu.Unlock()
	if gate != nil {
		<-gate
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return m.fail
	}
	for _, v := range vcrs {
		if !slices.Contains(m.vcrs[key], v) {
			m.vcrs[key] = append(m.vcrs[key], v)
		}
	}
	return nil
}

func (m *memory) Pending(_ context.Context, key Key, after uint64, limit int) (list []Notification, _ error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, n := range m.pending[key] {
		if n.ID > after && len(list) < limit {
			list = append(list, n)
		}
	}
	return list, nil
}

func (m *memory) Settle(_ context.Context, key Key, id uint64, accepted bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	i := slices.IndexFunc(m.pending[key], func(n Notification) bool { return n.ID == id })
	if i < 0 {
		return errors.New("settled twice")
	}
	m.pending[key] = slices.Delete(m.pending[key], i, i+1)
	if accepted {
		m.accepted = append(m.accepted, id)
	} else {
		m.rejected = append(m.rejected, id)
	}
	return nil
}

func (m *memory) add(key Key, n Notification) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n.Service = key.Service
	m.pending[key] = append(m.pending[key], n)
}

func (m *memory) set(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail = err
}

func (m *memory) waiting(key Key) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.pending[key])
}

func (m *memory) refused() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.rejected)
}

func (m *memory) stored(key Key) []learn.VCR {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.vcrs[key])
}

func (m *memory) publication(key Key) (Publication, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p, ok := m.pubs[key]
	return p, ok
}

var (
	serviceA = ServiceID{'8', '4', '5', '7', 'b', 'c', 'd', '5'}
	keyA     = Key{"vapuser", serviceA}
	theRoute = learn.Route{
		Number: "+14085551212", Domain: "b.example", URIs: []string{"sip:u1@b.example:5061;transport=tls"}, Ticket: "AAEAAQEA",
		Peer: learn.PeerID{1, 2}, Learned: time.Date(2026, 11, 27, 11, 0, 0, 0, time.UTC), Expires: time.Date(2027, 11, 27, 11, 0, 0, 0, time.UTC),
	}
	theVCR = learn.VCR{
		Role: learn.Originating, Called: "+14085551212", Caller: "+17325550001",
		Start: time.Date(2026, 11, 27, 10, 0, 0, 123e6, time.UTC), Stop: time.Date(2026, 11, 27, 10, 3, 7, 456e6, time.UTC),
	}
)

const password = "correct-horse-battery"

// users derives the test user's key once.
var users = sync.OnceValue(func() Users {
	key, err := DeriveUserKey("vapuser", password)
	if err != nil {
		panic(err)
	}
	return Users{"vapuser": key}
})

func serviceOf(id ServiceID) Service {
	return Service{ID: id, Name: "Vservice12-ccm18", Domain: "cisco.com", MaxDIDs: 2000, URIs: []string{"sip:d954c46b@cisco.com:5082;maddr=10.94.150.96;transport=tcp"}}
}

type testServer struct {
	*Server
	clock   *fakeClock
	handler *memory
}

func instance() Instance {
	return Instance{Name: "vapserver1", Addr: "127.0.0.1:0", Credentials: users()}
}

// startServer serves instances, with a clock that stands.
func startServer(t *testing.T, h *memory, quota uint32, instances ...Instance) *testServer {
	t.Helper()
	clock := newFakeClock()
	s := NewServer(ServerConfig{Handler: h, Quota: quota, Clock: clock.clock(), Log: testLog(t)})
	t.Cleanup(s.Close)
	if len(instances) == 0 {
		instances = []Instance{instance()}
	}
	if err := s.Apply(instances); err != nil {
		t.Fatal(err)
	}
	return &testServer{s, clock, h}
}

// pass lets time pass once the server has written what it was writing: its answer is here before it stops the write's timer.
func (s *testServer) pass(t *testing.T, d time.Duration) {
	t.Helper()
	eventually(t, "nothing is being written", func() bool { return s.clock.armed(writeTime) == 0 })
	s.clock.advance(d)
}

func (s *testServer) addr() string { return s.Addr("vapserver1").String() }

func testLog(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// startClient runs a client until the test ends.
func startClient(t *testing.T, cfg ClientConfig) (*Client, *fakeClock) {
	t.Helper()
	clock := newFakeClock()
	cfg.Clock, cfg.Log = clock.clock(), testLog(t)
	if cfg.Username == "" {
		cfg.Username, cfg.Password = "vapuser", password
	}
	if cfg.Name == "" {
		cfg.Name = "node1"
	}
	c, err := NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = c.Run(ctx)
	}()
	t.Cleanup(func() { cancel(); <-done })
	return c, clock
}

// within is a context that ends a test which hangs.
func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}
