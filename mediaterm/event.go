package mediaterm

import (
	"log/slog"
	"net/netip"
	"sync/atomic"
)

// eventQueue is the number of events that may wait for a slow Config.OnEvent; further
// ones are dropped and counted, as packets must not wait.
const eventQueue = 256

// EventKind names what happened; a closed set.
type EventKind string

const (
	// EventKeyExpiring: nine tenths of a key's lifetime are used: re-key by re-INVITE.
	EventKeyExpiring EventKind = "key_expiring"
	// EventKeyExpired: a key's lifetime is used up, its direction carries nothing more.
	EventKeyExpired EventKind = "key_expired"
	// EventSourceLocked: the first packet of a leg came and fixed its source.
	EventSourceLocked EventKind = "source_locked"
	// EventSourceChanged: an authenticated, newer packet moved the source.
	EventSourceChanged EventKind = "source_changed"
	// EventSequenceRestart: a sender began again below numbers already sent under its
	// SSRC and our key. Its packets are dropped, as indices must not repeat: only a new
	// local key, or the sender's next wrap, lets it be heard.
	EventSequenceRestart EventKind = "sequence_restart"
	// EventSSRCLimit: a key's table of SSRCs is full, new SSRCs are refused: re-key.
	EventSSRCLimit EventKind = "ssrc_limit"
)

// Event is told to Config.OnEvent, once per key (key and SSRC events) or per change.
type Event struct {
	Kind   EventKind
	Stream *Stream
	Side   Side           // the leg whose key or source it is
	Sent   bool           // key events: the local key; false: the remote one
	Source netip.AddrPort // source events
}

// LogValue gives the event as attributes of one group.
func (e Event) LogValue() slog.Value {
	attrs := []slog.Attr{slog.String("kind", string(e.Kind)), slog.String("side", e.Side.String())}
	if e.Source.IsValid() {
		attrs = append(attrs, slog.String("source", e.Source.String()))
	}
	if e.Stream != nil {
		attrs = append(attrs, slog.String("call_id", e.Stream.params.CallID), slog.String("media", e.Stream.params.Media))
	}
	return slog.GroupValue(attrs...)
}

// dispatcher calls OnEvent from one goroutine of its own, so that a callback may close
// the stream that the event came from.
type dispatcher struct {
	queue   chan Event
	done    chan struct{}
	stop    chan struct{}
	dropped atomic.Uint64
}

func newDispatcher(fn func(Event)) *dispatcher {
	d := &dispatcher{queue: make(chan Event, eventQueue), done: make(chan struct{}), stop: make(chan struct{})}
	go func() {
		defer close(d.done)
		for {
			select {
			case e := <-d.queue:
				fn(e)
			case <-d.stop:
				return
			}
		}
	}()
	return d
}

func (d *dispatcher) emit(e Event) {
	select {
	case d.queue <- e:
	default:
		d.dropped.Add(1)
	}
}

// close ends the goroutine after the callback that runs; waiting events are lost.
func (d *dispatcher) close() {
	close(d.stop)
	<-d.done
}
