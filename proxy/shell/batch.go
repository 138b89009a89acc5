package shell

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
)

// ErrCommandFailed says that a command failed and that the operator has been told.
var ErrCommandFailed = errors.New("command failed")

// Console is the operator's end of a shell.
type Console struct {
	Socket   string   // control socket
	Commands []string // of -c, in order; none = lines of In
	In       io.Reader
	Out      io.Writer
	Err      io.Writer // error texts of -c and of batches; a terminal gets them on Out, in place
	Terminal bool      // In is a terminal: a prompt is shown and a failed command does not end the session
	// Size gives the columns and lines of a terminal that passes on each key (raw mode): lines are edited, completed and paged here. Nil: lines
	// come whole, as from a file.
	Size func() (width, height int)
	// Login asks a person for name and password, where there are users, before the terminal becomes raw; nil: whoever may open the socket is
	// trusted.
	Login Typist
	// Raw makes the terminal pass on each key from then on, until restore; nil: it does already, or never.
	Raw func(con *Console) (restore func(), err error)
	// Resized tells that the window has another size; may be nil.
	Resized <-chan struct{}
}

// Run carries out the commands of -c, or else the lines of In up to its end or `exit`. The first command that fails ends it with
// ErrCommandFailed (on a terminal the session goes on). Any other error is one that the operator has not been told yet.
func Run(ctx context.Context, con Console) error {
	c, err := Dial(ctx, con.Socket)
	if err != nil {
		return err
	}
	defer c.Close()
	if con.Login != nil && c.Users() {
		if err := c.askLogin(ctx, con.Login, loginPause); err != nil {
			return err
		}
	}
	if con.Raw != nil {
		restore, err := con.Raw(&con)
		if err != nil {
			return err
		}
		defer restore()
	}
	if len(con.Commands) > 0 {
		for _, line := range con.Commands {
			if done, err := con.one(ctx, c, line); done || err != nil {
				return err
			}
		}
		return con.leave(ctx, c)
	}
	if con.Terminal && con.Size != nil {
		return con.Interact(ctx, c)
	}
	return con.lines(ctx, c)
}

// lines carries out the lines of In.
func (con Console) lines(ctx context.Context, c *Client) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	next, ended := con.read(ctx)
	if con.Terminal && c.Greeting() != "" {
		if _, err := io.WriteString(con.Out, c.Greeting()); err != nil {
			return fmt.Errorf("output: %w", err)
		}
	}
	for {
		if con.Terminal {
			if _, err := io.WriteString(con.Out, c.Prompt()); err != nil {
				return fmt.Errorf("output: %w", err)
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-ended:
			if con.Terminal {
				fmt.Fprintln(con.Out)
			}
			if err == nil {
				err = con.leave(ctx, c)
			}
			return err
		case line := <-next:
			done, err := con.one(ctx, c, line)
			if errors.Is(err, ErrCommandFailed) && con.Terminal && !done {
				continue
			}
			if done || err != nil {
				return err
			}
		}
	}
}

// leave ends configuration mode when the input ends in it, so that the settings of a sub-mode act. Whoever is cut off does not get here: what he
// has not finished is forgotten.
func (con Console) leave(ctx context.Context, c Dialogue) error {
	if !strings.Contains(c.Prompt(), "(config") {
		return nil
	}
	_, err := con.one(ctx, c, "end")
	if con.Terminal && errors.Is(err, ErrCommandFailed) {
		return nil
	}
	return err
}

// read hands the lines of In over one by one. It is a goroutine of its own because a read from a terminal cannot be interrupted; one that
// still waits when the shell ends goes with the process.
func (con Console) read(ctx context.Context) (next chan string, ended chan error) {
	next, ended = make(chan string), make(chan error, 1)
	go func() {
		in := bufio.NewScanner(con.In)
		in.Buffer(make([]byte, 0, 4096), MaxLine+2) // with the line's end
		for in.Scan() {
			select {
			case next <- in.Text():
			case <-ctx.Done():
				return
			}
		}
		err := in.Err()
		switch {
		case errors.Is(err, bufio.ErrTooLong):
			err = fmt.Errorf("a line is longer than %d bytes", MaxLine)
		case err != nil:
			err = fmt.Errorf("input: %w", err)
		}
		ended <- err
	}()
	return next, ended
}

func (con Console) one(ctx context.Context, c Dialogue, line string) (done bool, err error) {
	r, err := c.Run(ctx, line, con.Out)
	if err != nil {
		return true, err
	}
	if r.Exit == 0 {
		return r.Closed, ctx.Err() // what was interrupted has ended well, and nothing is to follow
	}
	w := con.Err
	if con.Terminal {
		w = con.Out
	}
	if _, err := fmt.Fprintln(w, r.Error); err != nil {
		return true, fmt.Errorf("output: %w", err)
	}
	return r.Closed, ErrCommandFailed
}
