package shell

import (
	"context"
	"io"
	"strings"
)

// ask is a question that waits for its answer: the next line of the session.
type ask struct {
	prompt string
	secret bool // the answer must not be seen
	// answer takes it. It may ask the next question.
	answer func(ctx context.Context, line string, w io.Writer) error
}

type questionsKey struct{}

// WithQuestions marks the context of a line that a person has typed, who can be asked about it. Lines that come from a file, or that were pasted, are
// carried out without questions: nobody would answer.
func WithQuestions(ctx context.Context) context.Context {
	return context.WithValue(ctx, questionsKey{}, true)
}

// asks says whether questions may be asked about a line.
func asks(ctx context.Context) bool { return ctx.Value(questionsKey{}) != nil }

// forget is the line that a terminal sends in the place of an answer when Ctrl-C was pressed: an empty line would be a yes to [confirm].
const forget = "\x03"

// confirm asks as an ASA does: Return or y goes on, anything else does nothing.
func (s *session) confirm(prompt string, then func(ctx context.Context, w io.Writer) error) {
	s.ask = &ask{prompt: prompt + " [confirm] ", answer: func(ctx context.Context, line string, w io.Writer) error {
		switch strings.ToLower(strings.TrimSpace(line)) {
		case "", "y", "yes":
			return then(ctx, w)
		}
		return nil
	}}
}

// yesNo asks until it is answered. quit is a no.
func (s *session) yesNo(prompt string, then func(ctx context.Context, yes bool, w io.Writer) error) {
	q := &ask{prompt: prompt + " [yes/no]: "}
	q.answer = func(ctx context.Context, line string, w io.Writer) error {
		switch strings.ToLower(strings.TrimSpace(line)) {
		case "y", "yes":
			return then(ctx, true, w)
		case "n", "no", "quit", "exit":
			return then(ctx, false, w)
		}
		s.ask = q
		_, err := io.WriteString(w, "% Please answer 'yes' or 'no'.\n")
		return err
	}
	s.ask = q
}
