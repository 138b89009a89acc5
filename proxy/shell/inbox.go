package shell

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"
)

// maxAhead bounds the requests of a connection that wait for those before them.
const maxAhead = 16

// received is a request that has come, or the error that was the end.
type received struct {
	request
	err    error
	ctx    context.Context    // ends when the command is to end: it is interrupted, or nobody will see its answer
	cancel context.CancelFunc // to be called at the end
}

// inbox reads the requests of one connection while commands run, so that one that goes on can be interrupted.
type inbox struct {
	requests chan received
	done     chan struct{}
	wg       sync.WaitGroup
}

// read begins to read; close ends it.
func (s *Server) read(ctx context.Context, c *net.UnixConn) *inbox {
	in := &inbox{requests: make(chan received, maxAhead), done: make(chan struct{})}
	alive, gone := context.WithCancel(ctx)
	in.wg.Go(func() {
		defer gone()           // whoever has left does not see what would still be written
		interrupt := func() {} // ends the latest command, whether it runs already or waits
		for {
			q, err := s.receive(c)
			switch {
			case err != nil:
				gone()
				in.put(received{err: err})
				return
			case q.Interrupt:
				interrupt()
				continue
			}
			r := received{request: q}
			r.ctx, r.cancel = context.WithCancel(alive)
			if interrupt = r.cancel; !in.put(r) {
				r.cancel()
				return
			}
		}
	})
	return in
}

func (in *inbox) put(r received) bool {
	select {
	case in.requests <- r:
		return true
	case <-in.done:
		return false
	}
}

// next waits for a request, for the idle time.
func (in *inbox) next(idle time.Duration, after func(time.Duration) (<-chan time.Time, func() bool)) (received, error) {
	late, stop := after(idle)
	defer stop()
	select {
	case r := <-in.requests:
		return r, r.err
	case <-late:
		return received{}, fmt.Errorf("%w for %s", ErrIdle, idle)
	}
}

// newTimer is the clock of a Server.
func newTimer(d time.Duration) (<-chan time.Time, func() bool) {
	t := time.NewTimer(d)
	return t.C, t.Stop
}

func (in *inbox) close(c net.Conn) {
	close(in.done)
	c.Close() // ends the reading
	in.wg.Wait()
}
