package shell

import (
	"context"
	"io"
	"log/slog"

	"imeproxy/proxy/observe"
)

// Dialogue is an operator's end of a session: a Client over the control socket, or a Local in the daemon itself.
type Dialogue interface {
	// Greeting is what a terminal shows before the first prompt.
	Greeting() string
	// Prompt is what stands before the next line; empty where lines of a certificate are read.
	Prompt() string
	// Secret says that the next line is a password, which must not be seen.
	Secret() bool
	// Run carries one line out and copies its output to w as it comes. Ending ctx interrupts a command that goes on. An error means that the dialogue is over; a command that failed is told by the Result.
	Run(ctx context.Context, line string, w io.Writer) (Result, error)
	// Complete extends a line that is being typed as far as it is certain.
	Complete(ctx context.Context, line string) (string, error)
}

// Local is a dialogue with a session in the same process. Not safe for concurrent use.
type Local struct {
	session Session
	who     Caller
	log     *slog.Logger
}

// NewLocal begins a session; the log is told of each command. Close it.
func NewLocal(x Executor, c Caller, log *slog.Logger) *Local {
	return &Local{session: x.NewSession(c), who: c, log: log}
}

// Greeting is what a terminal shows before the first prompt.
func (l *Local) Greeting() string { return l.session.Greeting() }

// Prompt is what stands before the next line.
func (l *Local) Prompt() string { return l.session.Prompt() }

// Secret says that the next line is a password.
func (l *Local) Secret() bool { return l.session.Secret() }

// Run carries one line out.
func (l *Local) Run(ctx context.Context, line string, w io.Writer) (Result, error) {
	end := perform(ctx, l.session, l.who, line, w, func() error { return nil }, l.log)
	return Result{Exit: end.Exit, Error: end.Error, Closed: end.Close}, nil
}

// Complete extends a line that is being typed.
func (l *Local) Complete(_ context.Context, line string) (string, error) {
	done, _ := l.session.Complete(observe.Clean(line))
	return done, nil
}

// Close ends the session: what it has not confirmed is taken back.
func (l *Local) Close() { l.session.Close() }
