package shell

import (
	"bytes"
	"context"
	"io"
	"sync"

	"imeproxy/proxy/config/keyword"
)

// stream carries one matched line of a session out that goes on for a while. It writes as things happen, and returns nil when it is done or ctx ends.
type stream func(ctx context.Context, s *session, args keyword.Args, w io.Writer) error

// flusher is a writer that holds back what is written until Flush.
type flusher interface{ Flush() error }

// direct passes on at once what is written to it.
type direct struct{ io.Writer }

func (p direct) Write(b []byte) (int, error) {
	n, err := p.Writer.Write(b)
	if f, ok := p.Writer.(flusher); ok && err == nil {
		err = f.Flush()
	}
	return n, err
}

// sieve lets the lines through that a filter lets through.
type sieve struct {
	to   io.Writer
	f    filter
	open []byte // of the line that has not ended yet
}

func (v *sieve) Write(b []byte) (int, error) {
	v.open = append(v.open, b...)
	for {
		i := bytes.IndexByte(v.open, '\n')
		if i < 0 {
			return len(b), nil
		}
		err := v.pass(v.open[:i+1])
		if v.open = v.open[i+1:]; err != nil {
			return 0, err
		}
	}
}

// end passes what stands behind the last line feed.
func (v *sieve) end() error { return v.pass(v.open) }

func (v *sieve) pass(line []byte) error {
	if len(line) == 0 || !v.f.passes(string(line)) {
		return nil
	}
	_, err := v.to.Write(line)
	return err
}

// follow runs a stream behind a filter.
func follow(ctx context.Context, run stream, s *session, args keyword.Args, f filter, w io.Writer) error {
	w = direct{w}
	if f.kind == filterNone {
		return run(ctx, s, args, w)
	}
	v := &sieve{to: w, f: f}
	if err := run(ctx, s, args, v); err != nil {
		return err
	}
	return v.end()
}

// maxHeld bounds in bytes what a terminal holds of an output that is not shown yet; a command that writes more waits.
const maxHeld = 1 << 20

// pipe brings the output of a command that runs to the terminal that shows it.
type pipe struct {
	mu      sync.Mutex
	changed sync.Cond
	held    []byte
	ended   bool // the command has ended
	deaf    bool // nobody wants to see more
}

func newPipe() *pipe {
	p := new(pipe)
	p.changed.L = &p.mu
	return p
}

func (p *pipe) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.held) >= maxHeld && !p.deaf {
		p.changed.Wait()
	}
	if !p.deaf {
		p.held = append(p.held, b...)
		p.changed.Broadcast()
	}
	return len(b), nil
}

// end says that the command has ended, with a last text.
func (p *pipe) end(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended = true; !p.deaf {
		p.held = append(p.held, text...)
	}
	p.changed.Broadcast()
}

// skip forgets what is not shown yet.
func (p *pipe) skip() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held = nil
	p.changed.Broadcast()
}

// close forgets also what comes.
func (p *pipe) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.deaf, p.held = true, nil
	p.changed.Broadcast()
}

// next waits for output and gives a line with its line feed, or what there is of one; false: the command has ended.
func (p *pipe) next() (string, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.held) == 0 {
		if p.ended || p.deaf {
			return "", false
		}
		p.changed.Wait()
	}
	n := bytes.IndexByte(p.held, '\n') + 1
	if n == 0 {
		n = len(p.held)
	}
	text := string(p.held[:n])
	p.held = p.held[n:]
	p.changed.Broadcast()
	return text, true
}
