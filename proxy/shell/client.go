package shell

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"strings"
	"syscall"
	"time"
)

// dialTime bounds connecting and the greeting; stopTime the end of a command that was interrupted.
const (
	dialTime = 5 * time.Second
	stopTime = 30 * time.Second
)

// Client is one connection to a daemon's control socket. Not safe for concurrent use.
type Client struct {
	conn             net.Conn
	greeting, prompt string
	secret, users    bool
}

// Result is how a command ended.
type Result struct {
	Exit   int    // 0, or 1 with Error
	Error  string // for the operator's eyes, may have several lines, no line feed at its end
	Closed bool   // the daemon ended the session
}

// RefusedError is part of Dial's error where a daemon answers but takes no session, as when too many are open.
type RefusedError struct{ Text string }

func (e *RefusedError) Error() string { return e.Text }

// ExitRefused is the exit status of a shell that was refused: scripts that watch the daemon see by it that it lives.
const ExitRefused = 3

// ExitCode is the status that a shell ends with.
func (e *RefusedError) ExitCode() int { return ExitRefused }

// Dial connects to a daemon and takes its greeting. The error says what the operator can do.
func Dial(ctx context.Context, socketPath string) (*Client, error) {
	if len(socketPath) > maxSocketPath {
		return nil, fmt.Errorf("control socket %s: path is longer than %d bytes", socketPath, maxSocketPath)
	}
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", socketPath)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, fmt.Errorf("%w on %s: start it with \"imeproxy run --config FILE\", or name the socket of the one that runs with --control SOCKET", ErrNoDaemon, socketPath)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("control socket %s: %w: run this as root or as the daemon's user", socketPath, fs.ErrPermission)
	case err != nil:
		return nil, fmt.Errorf("control socket: %w", err)
	}
	c := &Client{conn: conn}
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Now()) })()
	a, err := c.receive()
	if err == nil && a.Exit != 0 {
		err = &RefusedError{a.Error}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("control socket %s: %w", socketPath, err), conn.Close())
	}
	c.greeting, c.prompt, c.users = a.Output, a.Prompt, a.Users
	return c, nil
}

// Greeting is what a terminal shows before the first prompt.
func (c *Client) Greeting() string { return c.greeting }

// Prompt is what stands before the next line.
func (c *Client) Prompt() string { return c.prompt }

// Secret says that the next line is a password.
func (c *Client) Secret() bool { return c.secret }

// Close ends the connection.
func (c *Client) Close() error { return c.conn.Close() }

// Run carries one line out and copies its output to w as it comes. An error means that the connection cannot be used any more; a command
// that failed is told by the Result. Ending ctx interrupts a command that goes on, and ends the connection to a daemon that does not answer to that.
func (c *Client) Run(ctx context.Context, line string, w io.Writer) (Result, error) {
	if len(line) > MaxLine { // the daemon would end the connection
		return Result{Exit: 1, Error: fmt.Sprintf("ERROR: %% Line is longer than %d bytes", MaxLine)}, nil
	}
	if err := writeFrame(c.conn, request{Command: line, Asks: asks(ctx)}); err != nil {
		return Result{}, c.explain(ctx, err)
	}
	defer c.interrupted(ctx)()
	for {
		a, err := c.receive()
		if err != nil {
			return Result{}, c.explain(ctx, err)
		}
		if a.Done {
			if a.Prompt != "" || a.Hidden {
				c.prompt = a.Prompt
			}
			c.secret = a.Secret
			return Result{Exit: a.Exit, Error: a.Error, Closed: a.Close}, nil
		}
		if _, err := io.WriteString(w, a.Output); err != nil {
			return Result{}, fmt.Errorf("output: %w", err)
		}
	}
}

// interrupted passes the end of ctx on to the daemon, until done is called.
func (c *Client) interrupted(ctx context.Context) (done func()) {
	sent := make(chan struct{})
	var late *time.Timer
	stop := context.AfterFunc(ctx, func() {
		defer close(sent)
		late = time.AfterFunc(stopTime, func() { c.conn.Close() })
		if writeFrame(c.conn, request{Interrupt: true}) != nil {
			c.conn.Close()
		}
	})
	return func() {
		if !stop() {
			<-sent
			late.Stop()
		}
	}
}

// Complete extends a line that is being typed as far as it is certain.
func (c *Client) Complete(ctx context.Context, line string) (string, error) {
	if len(line) > MaxLine {
		return line, nil
	}
	defer context.AfterFunc(ctx, func() { c.conn.Close() })()
	if err := writeFrame(c.conn, request{Command: line, Complete: true}); err != nil {
		return line, c.explain(ctx, err)
	}
	a, err := c.receive()
	if err != nil {
		return line, c.explain(ctx, err)
	}
	return a.Line, nil
}

// explain says why the connection cannot be used any more. What the daemon said last may still wait to be read, when it has ended the
// connection and writing was what failed.
func (c *Client) explain(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.Is(err, syscall.EPIPE) {
		if a, e := c.receive(); e == nil && a.Close {
			err = errors.New(strings.TrimPrefix(a.Error, "ERROR: "))
		}
	}
	return fmt.Errorf("the daemon ended the connection: %w", err)
}

func (c *Client) receive() (answer, error) {
	body, err := readFrame(c.conn, MaxAnswer, func() {})
	if err != nil {
		return answer{}, noEOF(err)
	}
	var a answer
	if err := json.Unmarshal(body, &a); err != nil {
		return a, fmt.Errorf("malformed answer: %w", err)
	}
	return a, nil
}
