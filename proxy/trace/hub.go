package trace

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Limits of a hub.
const (
	MaxSubscriptions = 64
	MaxWaiting       = 4096     // events of a subscription that nobody has taken yet
	MaxBytes         = 16 << 20 // of their messages
)

// Kind is what an event is about; kinds can be added up.
type Kind uint32

// The kinds.
const (
	SIP       Kind = 1 << iota // messages on the wire
	Ticket                     // verdicts on tickets
	Signaling                  // signaling sessions, calls
	Media                      // session descriptions and streams
	Fallback                   // quality and notifications to fall back
	Mapping                    // requests to the mapping service
	all       = 1<<iota - 1
)

// Names of the kinds but SIP, as `debug uc-ime` has them.
func Names() []string { return []string{"ticket", "signaling", "media", "fallback", "mapping-service"} }

// KindOf reads one of Names; the empty name is all of them.
func KindOf(name string) Kind {
	for i, n := range Names() {
		if n == name {
			return Ticket << i
		}
	}
	return all &^ SIP
}

func (k Kind) String() string {
	if k == SIP {
		return "sip"
	}
	for i, n := range Names() {
		if k == Ticket<<i {
			return n
		}
	}
	return fmt.Sprintf("kinds %#x", uint32(k))
}

// Event is something that has happened. It is nobody's to change.
type Event struct {
	At     time.Time
	Kind   Kind
	CallID string // of the call that it belongs to, if any
	Text   string // in words; empty for a message
	Peer   string // address or domain of the far end, if it is known

	From, To netip.AddrPort // of a message
	Secure   bool           // it was in TLS
	Data     []byte         // the whole message, keys blotted out
}

// Hub passes events on. The zero value is ready.
type Hub struct {
	want atomic.Uint32 // kinds that anybody subscribes to
	mu   sync.Mutex
	subs map[*Subscription]struct{}
}

// Wants says whether anybody looks at a kind. Whoever has to work for an event asks first.
func (h *Hub) Wants(k Kind) bool { return h != nil && h.want.Load()&uint32(k) != 0 }

// Message passes a SIP message on that went from one address to the other.
func (h *Hub) Message(from, to net.Addr, secure bool, data []byte) {
	if !h.Wants(SIP) {
		return
	}
	h.put(&Event{At: time.Now(), Kind: SIP, CallID: header(data, "call-id", "i"), From: addrPort(from), To: addrPort(to), Secure: secure, Data: blotted(data)})
}

// Event passes an event on in words.
func (h *Hub) Event(k Kind, callID, peer, format string, args ...any) {
	if h.Wants(k) {
		h.put(&Event{At: time.Now(), Kind: k, CallID: callID, Peer: peer, Text: fmt.Sprintf(format, args...)})
	}
}

func addrPort(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	p := t.AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}

func (h *Hub) put(e *Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for s := range h.subs {
		if s.kinds&e.Kind == 0 || !s.filter.passes(e) {
			continue
		}
		if s.bytes.Load()+int64(len(e.Data)) > MaxBytes {
			s.lost.Add(1)
			continue
		}
		select {
		case s.events <- e:
			s.bytes.Add(int64(len(e.Data)))
		default:
			s.lost.Add(1)
		}
	}
}

// Subscription is one operator's look at what happens. Close it.
type Subscription struct {
	hub    *Hub
	kinds  Kind
	filter tracker // guarded by the hub's mu
	events chan *Event
	bytes  atomic.Int64
	lost   atomic.Uint64
}

// ErrTooMany says that too many look already.
var ErrTooMany = errors.New("too many debug and capture commands run at once: end one")

// Subscribe begins to look at some kinds through a filter.
func (h *Hub) Subscribe(kinds Kind, f Filter) (*Subscription, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.subs) >= MaxSubscriptions {
		return nil, ErrTooMany
	}
	s := &Subscription{hub: h, kinds: kinds, filter: tracker{Filter: f}, events: make(chan *Event, MaxWaiting)}
	if h.subs == nil {
		h.subs = map[*Subscription]struct{}{}
	}
	h.subs[s] = struct{}{}
	h.count()
	return s, nil
}

func (h *Hub) count() {
	var k Kind
	for s := range h.subs {
		k |= s.kinds
	}
	h.want.Store(uint32(k))
}

// Next waits for an event. After done was closed it gives those that had come, then false.
func (s *Subscription) Next(done <-chan struct{}) (*Event, bool) {
	var e *Event
	select {
	case e = <-s.events:
	case <-done:
		select {
		case e = <-s.events:
		default:
			return nil, false
		}
	}
	s.bytes.Add(-int64(len(e.Data)))
	return e, true
}

// Lost gives how many events were lost since it was asked last.
func (s *Subscription) Lost() uint64 { return s.lost.Swap(0) }

// Close ends the look.
func (s *Subscription) Close() {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	delete(s.hub.subs, s)
	s.hub.count()
}
