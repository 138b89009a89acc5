package capture

import (
	"bufio"
	"errors"
	"os"
	"sync"
	"time"

	"imeproxy/proxy/observe"
	"imeproxy/proxy/trace"
)

type running struct {
	spec  Spec
	limit int64
	end   func() // ends what it listens to
	done  chan struct{}

	mu        sync.Mutex // guards what follows
	file      *os.File
	w         *bufio.Writer
	bytes     int64
	packets   uint64
	lost      uint64
	state     string
	wait      []waiting // packets that are not in the file yet, in their order
	waitBytes int
	keys      time.Time // until when keys of TLS sessions are written; zero: never
	timer     *time.Timer
}

const capturing = "Capturing"

func (r *running) active() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state == capturing
}

func (r *running) listen(hub *trace.Hub) error {
	sub, err := hub.Subscribe(trace.SIP, r.spec.SIP)
	if err != nil {
		return err
	}
	stop := make(chan struct{})
	r.end = sync.OnceFunc(func() { close(stop) })
	r.write(header(linkUpperPDU, "sip"))
	go func() {
		defer close(r.done)
		defer sub.Close()
		for {
			e, ok := sub.Next(stop)
			if !ok {
				r.finish("stopped")
				return
			}
			b := pdu(e)
			r.addLost(sub.Lost())
			if !r.packet(e.At, packetBlock(e.At, b, len(b))) {
				return
			}
		}
	}()
	return nil
}

func (r *running) hear() error {
	t, err := openTap(r.spec.Device, r.spec.Host, r.spec.Port)
	if err != nil {
		return err
	}
	r.end = t.stop
	r.write(header(linkEthernet, r.spec.Device))
	go func() {
		defer close(r.done)
		defer t.close()
		for n := 0; ; n++ {
			p, err := t.next()
			if errors.Is(err, os.ErrClosed) {
				r.finish("stopped")
				return
			}
			if err != nil {
				r.finish("ended: " + err.Error())
				return
			}
			if n%1000 == 0 {
				r.addLost(t.lost())
			}
			if !r.packet(p.at, packetBlock(p.at, p.data, p.length)) {
				return
			}
		}
	}()
	return nil
}

func (r *running) addLost(n uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lost += n
}

func (r *running) write(b []byte) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.writeLocked(b)
}

const (
	keyDelay = time.Second
	maxWait  = 8 << 20 // bytes of packets that wait
)

type waiting struct {
	at    time.Time
	block []byte
}

func (r *running) packet(at time.Time, b []byte) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.state != capturing {
		return false
	}
	r.packets++
	r.wait = append(r.wait, waiting{at, b})
	r.waitBytes += len(b)
	now := time.Now()
	if now.After(r.keys) {
		return r.flushLocked(now)
	}
	return r.flushLocked(now.Add(-keyDelay))
}

func (r *running) flushLocked(to time.Time) bool {
	for len(r.wait) > 0 && (!r.wait[0].at.After(to) || r.waitBytes > maxWait) {
		if !r.writeLocked(r.wait[0].block) {
			return false
		}
		r.waitBytes -= len(r.wait[0].block)
		r.wait = r.wait[1:]
	}
	return true
}

func (r *running) flushAllLocked() bool {
	for i := range r.wait {
		r.wait[i].at = time.Time{}
	}
	return r.flushLocked(time.Now())
}

func (r *running) writeLocked(b []byte) bool {
	if r.state != capturing {
		return false
	}
	if r.bytes+int64(len(b)) > r.limit {
		r.packets -= uint64(len(r.wait))
		r.wait = nil
		r.finishLocked("full")
		return false
	}
	if _, err := r.w.Write(b); err != nil {
		r.wait = nil
		r.finishLocked("ended: " + err.Error())
		return false
	}
	r.bytes += int64(len(b))
	return true
}

func (r *running) finish(state string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.finishLocked(state)
}

func (r *running) finishLocked(state string) {
	if r.state != capturing || !r.flushAllLocked() {
		return
	}
	r.state, r.keys = state, time.Time{}
	if r.timer != nil {
		r.timer.Stop()
	}
	if err := errors.Join(r.w.Flush(), r.file.Close()); err != nil {
		r.state = "ended: " + err.Error()
	}
	r.end()
}

func (r *running) stop() {
	r.end()
	<-r.done
	r.finish("stopped")
}

type keyLog []*running

func (k keyLog) Write(line []byte) (int, error) {
	for _, r := range k {
		r.write(secretsBlock(line))
	}
	return len(line), nil
}

func (r *running) shown() observe.Capture {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := observe.Capture{
		Name: r.spec.Name, Type: r.spec.kind(), Filter: r.spec.filter(), State: r.state, Packets: r.packets, Bytes: r.bytes, Limit: r.limit, Lost: r.lost,
		File: fileName(r.spec.Name),
	}
	if !r.keys.IsZero() && time.Now().Before(r.keys) {
		until := r.keys
		c.KeysUntil = &until
	}
	return c
}
