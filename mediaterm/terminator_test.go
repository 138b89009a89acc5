package mediaterm

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestStreamLimit(t *testing.T) {
	r := newRig(t, func(c *Config) { c.MaxStreams = 2; c.Rest = -1 })
	params := StreamParams{Inside: ourInside, Outside: ourOutside}
	second, err := r.term.NewStream(params)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.term.NewStream(params); !errors.Is(err, ErrStreamLimit) {
		t.Errorf("third stream: %v", err)
	}
	second.Close()
	if _, err := r.term.NewStream(params); err != nil {
		t.Errorf("after one has closed: %v", err)
	}
	c := r.term.Counters()
	if c.Streams != 2 || c.MostStreams != 2 || c.MaxStreams != 2 || c.RefusedStreams != 1 || c.StreamsOpened != 3 || c.Engine != engineName() || c.Resting != 0 {
		t.Errorf("counters %+v", c)
	}
}

// Close ends many streams within a second while packets flow; ports are free for others
// then, and counters stay readable.
func TestCloseEndsAll(t *testing.T) {
	term := newTerminator(t, Config{Addresses: ourAddresses(), MinPort: 25000, MaxPort: 27999})
	far := newEndpoint(t, peerAddr)
	var streams []*Stream
	for i := range 200 {
		s, err := term.NewStream(StreamParams{Inside: ourInside, Outside: ourOutside, CallID: fmt.Sprint("call-", i)})
		if err != nil {
			t.Fatal(err)
		}
		for _, err := range []error{
			s.SetRemote(Inside, far.remote()), s.SetRemote(Outside, far.remote()),
			s.SetCrypto(Outside, mustKey(t, SuiteCM80), mustKey(t, SuiteCM80)),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
		streams = append(streams, s)
	}
	if list := term.Streams(); len(list) != 200 || list[0] != streams[0] || list[199] != streams[199] {
		t.Errorf("%d streams, or not in order", len(list))
	}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for seq := uint16(0); ; seq++ {
			select {
			case <-stop:
				return
			default:
				_, _ = far.rtp.WriteToUDPAddrPort(rtpPacket(1, seq), streams[int(seq)%200].Local(Inside))
			}
		}
	}()
	begun := time.Now()
	if err := term.Close(); err != nil {
		t.Error(err)
	}
	if took := time.Since(begun); took > time.Second {
		t.Errorf("close took %v", took)
	}
	close(stop)
	<-done
	if _, err := term.NewStream(StreamParams{Inside: ourInside, Outside: ourOutside}); !errors.Is(err, ErrClosed) {
		t.Errorf("new stream after close: %v", err)
	}
	s := streams[7]
	if err := s.SetRemote(Outside, far.remote()); !errors.Is(err, ErrClosed) {
		t.Errorf("SetRemote after close: %v", err)
	}
	if err := s.SetCrypto(Outside, nil, nil); !errors.Is(err, ErrClosed) {
		t.Errorf("SetCrypto after close: %v", err)
	}
	if st := s.Stats(); st.CallID != "call-7" || st.Outside.Suite != string(SuiteCM80) {
		t.Errorf("final stats %+v", st)
	}
	conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(s.Local(Inside)))
	if err != nil {
		t.Errorf("the port is still held: %v", err)
	} else {
		_ = conn.Close()
	}
}

// Streams come and go from many goroutines while others read counters (race detector).
func TestConcurrentUse(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Rest = -1 })
	k := mustKey(t, SuiteCM80)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 20 {
				s, err := r.term.NewStream(StreamParams{Inside: ourInside, Outside: ourOutside})
				if err != nil {
					t.Error(err)
					return
				}
				_ = s.SetRemote(Outside, r.far.remote())
				_ = r.stream.SetCrypto(Outside, k, k)
				_ = r.stream.SetRemote(Inside, r.phone.remote())
				_ = r.stream.Stats()
				r.term.Counters()
				s.Close()
			}
		})
	}
	for seq := range uint16(500) {
		send(t, r.phone.rtp, r.our(Inside, portRTP), rtpPacket(1, seq))
	}
	wg.Wait()
	if n := len(r.term.Streams()); n != 1 {
		t.Errorf("%d streams left", n)
	}
}

// A callback may close the stream it is told about; one that hangs costs events, not packets.
func TestEventCallback(t *testing.T) {
	release, closed := make(chan struct{}), make(chan struct{})
	var once sync.Once
	r := newRig(t, func(c *Config) {
		c.OnEvent = func(e Event) {
			<-release
			once.Do(func() {
				e.Stream.Close()
				close(closed)
			})
		}
	})
	let := sync.OnceFunc(func() { close(release) })
	t.Cleanup(let) // or the terminator would wait for the callback
	r.setCrypto(Outside, nil, nil)
	for seq := range uint16(eventQueue + 20) { // each re-INVITE locks anew: an event
		r.setRemote(Inside, r.phone.remote())
		send(t, r.phone.rtp, r.our(Inside, portRTP), rtpPacket(1, seq))
		expect(t, r.far.rtp, rtpPacket(1, seq))
	}
	if n := r.term.Counters().EventsDropped; n < 19 {
		t.Errorf("dropped events: %d", n)
	}
	let()
	select {
	case <-closed:
	case <-time.After(patience):
		t.Fatal("the callback could not close its stream")
	}
}

func TestEventLog(t *testing.T) {
	var out strings.Builder
	s := &Stream{params: StreamParams{CallID: "c9", Media: "video"}}
	slog.New(slog.NewTextHandler(&out, nil)).Info("media", "event", Event{Kind: EventSourceLocked, Stream: s, Side: Outside, Source: loopFar})
	for _, part := range []string{"event.kind=source_locked", "event.side=outside", "event.source=127.0.0.30:5000", "event.call_id=c9"} {
		if !strings.Contains(out.String(), part) {
			t.Errorf("%s is not in %s", part, out.String())
		}
	}
}
