package shell

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"imeproxy/proxy/observe"
)

// Limits of the control socket.
const (
	MaxClients  = 32
	RequestTime = 10 * time.Second // from the first byte of a request to its last
	WriteTime   = 30 * time.Second // for the client to take one answer frame
	IdleTime    = 30 * time.Minute // between requests
)

// Server answers on one control socket.
type Server struct {
	Path     string
	Executor Executor
	Log      *slog.Logger  // one line a command: who and what; nil = slog.Default
	Ready    chan struct{} // closed once the socket accepts connections; may be nil

	// Limits; 0 = the constants above.
	MaxClients                       int
	RequestTime, WriteTime, IdleTime time.Duration

	uid   int                                                         // of those that may connect besides root; tests change it
	after func(time.Duration) (at <-chan time.Time, stop func() bool) // the clock of IdleTime; tests change it
}

// Serve answers on socketPath until ctx ends, then closes every connection, removes the socket and returns nil.
func Serve(ctx context.Context, socketPath string, x Executor) error {
	return (&Server{Path: socketPath, Executor: x}).Serve(ctx)
}

// Serve is the method form of the function Serve. It returns when the last connection's goroutine has ended.
func (s *Server) Serve(ctx context.Context) error {
	v := s.withDefaults()
	l, err := listen(v.Path)
	if err != nil {
		return err
	}
	if s.Ready != nil {
		close(s.Ready)
	}
	return v.accept(ctx, l)
}

func (s *Server) withDefaults() *Server {
	v := *s
	if v.Log == nil {
		v.Log = slog.Default()
	}
	if v.MaxClients <= 0 {
		v.MaxClients = MaxClients
	}
	if v.RequestTime <= 0 {
		v.RequestTime = RequestTime
	}
	if v.WriteTime <= 0 {
		v.WriteTime = WriteTime
	}
	if v.IdleTime <= 0 {
		v.IdleTime = IdleTime
	}
	if v.after == nil {
		v.after = newTimer
	}
	if v.uid == 0 {
		v.uid = os.Getuid()
	}
	return &v
}

func (s *Server) accept(ctx context.Context, l *listener) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { l.UnixListener.Close() })
	defer stop()
	var wg sync.WaitGroup
	// Refusals are answered by goroutines too, so these are bounded apart: beyond them a connection is closed without a word.
	slots, refusals := make(chan struct{}, s.MaxClients), make(chan struct{}, s.MaxClients)
	defer func() {
		cancel()
		wg.Wait()
		if e := l.Close(); e != nil && !errors.Is(e, net.ErrClosed) {
			err = errors.Join(err, fmt.Errorf("control socket: %w", e))
		}
	}()
	for {
		c, e := l.AcceptUnix()
		if e != nil {
			if ctx.Err() != nil {
				return nil
			}
			if !s.pause(ctx, e) {
				return fmt.Errorf("control socket: %w", e)
			}
			continue
		}
		select {
		case slots <- struct{}{}:
			wg.Go(func() {
				defer func() { <-slots }()
				s.connection(ctx, c)
			})
		default:
			select {
			case refusals <- struct{}{}:
				wg.Go(func() {
					defer func() { <-refusals }()
					s.refuse(c, ErrBusy)
				})
			default:
				c.Close()
			}
		}
	}
}

// pause waits a little after an error that will pass (no file descriptors left); others end the server.
func (s *Server) pause(ctx context.Context, e error) bool {
	if errors.Is(e, net.ErrClosed) {
		return false
	}
	s.Log.Warn("control socket: accept failed", "error", e)
	select {
	case <-ctx.Done():
	case <-time.After(100 * time.Millisecond):
	}
	return true
}

func (s *Server) refuse(c *net.UnixConn, reason error) {
	defer c.Close()
	s.Log.Warn("control connection refused", "error", reason)
	_ = s.send(c, answer{Done: true, Exit: 1, Error: "ERROR: " + reason.Error(), Close: true}) // the client may be gone: nothing is lost
}

func (s *Server) send(c net.Conn, a answer) error {
	if err := c.SetWriteDeadline(time.Now().Add(s.WriteTime)); err != nil {
		return err
	}
	return writeFrame(c, a)
}

func (s *Server) connection(ctx context.Context, c *net.UnixConn) {
	who, err := callerOf(c)
	if err == nil && !allowed(who, s.uid) {
		err = ErrForbidden
	}
	if err != nil {
		s.refuse(c, err)
		return
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	log := s.Log.With("uid", who.UID, "pid", who.PID)
	session := s.Executor.NewSession(who)
	defer func() { session.Close() }() // that which there is at the end
	if err := s.send(c, answer{Output: session.Greeting(), Prompt: session.Prompt(), Users: hasUsers(s.Executor)}); err != nil {
		return
	}
	in := s.read(ctx, c)
	defer in.close(c)
	for {
		q, err := in.next(s.IdleTime, s.after)
		if err != nil {
			if !errors.Is(err, io.EOF) && ctx.Err() == nil {
				log.Info("control connection ended", "error", err)
			}
			if errors.Is(err, ErrTooLong) || errors.Is(err, ErrMalformed) || errors.Is(err, ErrIdle) {
				_ = s.send(c, answer{Done: true, Exit: 1, Error: "ERROR: " + err.Error(), Close: true}) // closed in any case
			}
			return
		}
		if q.Complete {
			q.cancel()
			line, _ := session.Complete(q.Command)
			if err := s.send(c, answer{Done: true, Line: line}); err != nil {
				return
			}
			continue
		}
		if q.Login != nil {
			q.cancel()
			end := answer{Done: true, Exit: 1, Error: errDenied.Text}
			if next, as := logIn(s.Executor, *q.Login); next != nil {
				session.Close()
				session, who, log = next, as, s.Log.With("user", q.Login.Name, "from", atConsole)
				log.Info("console session begins")
				defer log.Info("console session ends")
				end = answer{Done: true, Prompt: session.Prompt()}
			} else {
				log.Warn("console login failed") // what was typed as a name may be a password
			}
			if err := s.send(c, end); err != nil {
				return
			}
			continue
		}
		if q.Asks {
			q.ctx = WithQuestions(q.ctx)
		}
		end := s.carryOut(q.ctx, c, session, who, q.request, log)
		q.cancel()
		if err := s.send(c, end); err != nil || end.Close {
			return
		}
	}
}

func (s *Server) receive(c *net.UnixConn) (request, error) {
	if err := c.SetReadDeadline(time.Time{}); err != nil { // next has an eye on the time between requests
		return request{}, err
	}
	var late error
	body, err := readFrame(c, MaxRequest, func() { late = c.SetReadDeadline(time.Now().Add(s.RequestTime)) })
	if err = errors.Join(err, late); err != nil {
		return request{}, err
	}
	return decodeRequest(body)
}

// carryOut runs one command of a session at the socket.
func (s *Server) carryOut(ctx context.Context, c net.Conn, session Session, who Caller, q request, log *slog.Logger) answer {
	out := &output{send: func(a answer) error { return s.send(c, a) }}
	return perform(ctx, session, who, q.Command, out, out.Flush, log)
}

// perform runs one command and tells the log of it. A fault in one command must not take the calls of the daemon with it, so a panic ends as
// its error.
func perform(ctx context.Context, session Session, who Caller, line string, out io.Writer, flush func() error, log *slog.Logger) (end answer) {
	defer func() {
		if p := recover(); p != nil {
			log.Error("command failed inside", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			end = answer{Done: true, Exit: 1, Error: "ERROR: % Internal error, see the log"}
		}
		audit(log, who, session.Deed(), strings.TrimSpace(line), end.Exit)
	}()
	err := session.Run(ctx, line, out)
	if lost := flush(); err == nil { // what was said before an error, or before the end, is said all the same
		err = lost
	}
	end = answer{Done: true}
	var wrong *CommandError
	var mistake mistakeError
	switch {
	case err == nil:
	case errors.Is(err, ErrExit):
		end.Close = true
	case errors.As(err, &mistake):
		end.Exit, end.Error = 1, cleanLines(err.Error())
	case errors.As(err, &wrong):
		if wrong == errDenied {
			log.Warn("enable refused: the password was wrong", "tries", maxTries)
		}
		end.Exit, end.Error = 1, wrong.Error()
	default:
		end.Exit, end.Error = 1, "ERROR: "+cleanLines(err.Error())
	}
	if len(end.Error) > outputChunk {
		end.Error = end.Error[:outputChunk]
	}
	end.Prompt = session.Prompt()
	end.Hidden, end.Secret = end.Prompt == "", session.Secret()
	return end
}

// cleanLines takes what would disturb a terminal out of a text of several lines.
func cleanLines(text string) string {
	var out []string
	for _, line := range strings.Split(text, "\n") {
		out = append(out, observe.Clean(line))
	}
	return strings.Join(out, "\n")
}

// output cuts a command's output into frames.
type output struct {
	send func(answer) error
	buf  []byte
}

func (o *output) Write(p []byte) (int, error) {
	o.buf = append(o.buf, p...)
	for len(o.buf) >= outputChunk {
		n := runeStart(o.buf, outputChunk)
		if err := o.send(answer{Output: string(o.buf[:n])}); err != nil {
			return 0, err
		}
		o.buf = o.buf[n:]
	}
	return len(p), nil
}

// Flush sends what is left.
func (o *output) Flush() error {
	if len(o.buf) == 0 {
		return nil
	}
	err := o.send(answer{Output: string(o.buf)})
	o.buf = nil
	return err
}

// runeStart moves n back to the border of a character: a frame is JSON text, in which half a character would be lost.
func runeStart(b []byte, n int) int {
	for i := n; i > n-4 && i > 0; i-- {
		if i == len(b) || b[i]&0xc0 != 0x80 {
			return i
		}
	}
	return n
}
