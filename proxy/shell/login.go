package shell

import (
	"context"
	"errors"
	"time"

	"imeproxy/proxy/config"
)

// atConsole is where a user comes from who has logged in at the machine's console.
const atConsole = "the console"

const (
	loginTries = 3
	// loginPause follows each wrong password, so that nobody can try many.
	loginPause = 2 * time.Second
)

// ErrDenied says that nobody has logged in.
var ErrDenied = errors.New("access denied")

// Authenticator is an Executor that knows users.
type Authenticator interface {
	// Users says whether there are users: whoever has the console must be one of them then.
	Users() bool
	// LogIn gives the caller for a name and a password.
	LogIn(name, password string) (c Caller, ok bool)
}

// Users says whether there are users. Those with keys alone count: they cannot log in at the console, but nobody else may either.
func (x *executor) Users() bool { return x.keeper != nil && len(x.keeper.Running().Users) > 0 }

// LogIn gives a user the rights that he has over SSH.
func (x *executor) LogIn(name, password string) (Caller, bool) {
	if x.keeper == nil {
		return Caller{}, false
	}
	u := x.keeper.Running().LogIn(name, password)
	if u == nil {
		return Caller{}, false
	}
	return Caller{Name: u.Name, From: atConsole, ViewOnly: u.Privilege < config.PrivilegeAll}, true
}

func hasUsers(x Executor) bool {
	a, ok := x.(Authenticator)
	return ok && a.Users()
}

// logIn begins the session of a user, or gives nil.
func logIn(x Executor, l login) (Session, Caller) {
	a, ok := x.(Authenticator)
	if !ok {
		return nil, Caller{}
	}
	c, ok := a.LogIn(l.Name, l.Password)
	if !ok {
		return nil, Caller{}
	}
	return x.NewSession(c), c
}

// Users says whether a person at the console must log in.
func (c *Client) Users() bool { return c.users }

// LogIn begins the session of a user in place of the one that the socket gives. An error means that the connection cannot be used any more.
func (c *Client) LogIn(ctx context.Context, name, password string) (ok bool, err error) {
	defer c.interrupted(ctx)()
	if err := writeFrame(c.conn, request{Login: &login{name, password}}); err != nil {
		return false, c.explain(ctx, err)
	}
	a, err := c.receive()
	if err != nil {
		return false, c.explain(ctx, err)
	}
	if a.Exit == 0 {
		c.prompt = a.Prompt
	}
	return a.Exit == 0, nil
}

// Typist is a terminal where a name and a password are asked for.
type Typist interface {
	Ask(prompt string) (string, error)
	// Secret reads without showing what is typed.
	Secret(prompt string) (string, error)
	Tell(text string)
}

// askLogin lets a person log in: three times at most. ErrDenied when none was right.
func (c *Client) askLogin(ctx context.Context, t Typist, pause time.Duration) error {
	for range loginTries {
		name, err := t.Ask("Username: ")
		if err != nil {
			return err
		}
		if name == "" {
			continue
		}
		password, err := t.Secret("Password: ")
		if err != nil {
			return err
		}
		if ok, err := c.LogIn(ctx, name, password); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
		t.Tell("Invalid user name or password")
	}
	return ErrDenied
}
