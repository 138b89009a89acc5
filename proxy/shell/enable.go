package shell

import (
	"context"
	"io"

	"golang.org/x/crypto/bcrypt"

	"imeproxy/proxy/config"
	"imeproxy/proxy/config/keyword"
	"imeproxy/proxy/observe"
)

// maxTries bounds the passwords that one enable takes.
const maxTries = 3

// enablePassword is what enable asks for; empty: nothing.
func (x *executor) enablePassword() config.Secret {
	if x.keeper == nil {
		return ""
	}
	return x.keeper.Running().EnablePassword
}

// enable gives the session its privilege, if need be for a password.
func enable(s *session, _ keyword.Args) (observe.View, error) {
	if !s.user || s.x.enablePassword() == "" {
		s.user = false
		return lines{}, nil
	}
	tries := 0
	q := &ask{prompt: "Password: ", secret: true}
	q.answer = func(_ context.Context, line string, w io.Writer) error {
		tries++
		hash := s.x.enablePassword() // it may have been changed, or removed, meanwhile
		if hash == "" || (len(line) <= 72 && bcrypt.CompareHashAndPassword([]byte(hash.Reveal()), []byte(line)) == nil) {
			s.user = false
			return nil
		}
		if tries == maxTries {
			return errDenied
		}
		s.ask = q
		_, err := io.WriteString(w, "Invalid password\n")
		return err
	}
	s.ask = q
	return lines{}, nil
}

// errDenied says that the passwords were wrong. The log tells of it.
var errDenied = &CommandError{Text: "% Access denied"}
