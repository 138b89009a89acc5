package shell

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"

	"imeproxy/proxy/config"
	"imeproxy/proxy/config/keyword"
	"imeproxy/proxy/observe"
	"imeproxy/proxy/revision"
)

// Keeper is the configuration as the commands see it: what package revision does. Its methods may be called from several goroutines at once.
type Keeper interface {
	Running() *config.Config
	Missing() config.Diagnostics
	Append(who string, lines []string) (missing config.Diagnostics, err error)
	Replace(who string, next *config.Config) error
	Remove(who, section string) (missing config.Diagnostics, found bool, err error)
	Try(who string, before *config.Config, d time.Duration) error
	Trial() time.Time
	Confirm(who string) error
	Cancel(who string)
	Startup() (*config.Config, error)
	Read(name string) (*config.Config, error)
	Comments() int
	Save(who string) error
	Store(who string, c *config.Config) error
	History() ([]revision.Former, error)
	Former(number int) (*config.Config, error)
}

// maxBody bounds the lines of a certificate.
const maxBody = 4000

// configure carries out a line in configuration mode: a command of the configuration, or else one of privileged mode, as an ASA takes them
// there too. raw is the line as it came, line the same made fit for a terminal.
func (s *session) configure(ctx context.Context, raw, line string, w io.Writer) error {
	if privileged := withoutDo(line); privileged != line {
		return s.command(ctx, privileged, w)
	}
	if before, ok := strings.CutSuffix(line, "?"); ok && !strings.Contains(line, "|") {
		s.deed = Nothing
		return put(w)(helpText(s.help(before)))
	}
	typed, mistakes := s.edit.Line(s.x.keeper.Running(), raw)
	if len(mistakes) > 0 {
		command, _, _ := splitFilter(line)
		_, _, e := s.x.tree.MatchLine(command)
		if e != nil && (e.Index == 0 || !mistakes[0].Unknown()) {
			return mistaken(mistakes)
		}
		return s.command(ctx, line, w)
	}
	s.deed = Change
	if typed.Body {
		s.body, s.bodyAsks = []string{raw}, asks(ctx) && cryptoCA(line, "authenticate") != ""
		_, err := io.WriteString(w, "Enter the base 64 encoded certificate.\nEnd with the word \"quit\" on a line by itself\n")
		return err
	}
	if asks(ctx) {
		return s.typedByHand(line, typed, w)
	}
	return s.typed(typed, w)
}

// withoutDo blanks the word out by which other systems of the vendor reach privileged mode from configuration mode: "do write" would be
// taken as "domain-name write" here, and change the domain of every ticket. Blanks keep the columns of error markers right.
func withoutDo(line string) string {
	if f := strings.Fields(line); len(f) < 2 || !strings.EqualFold(f[0], "do") {
		return line
	}
	at := len(line) - len(strings.TrimLeft(line, " "))
	return line[:at] + "  " + line[at+len("do"):]
}

// typedByHand carries out a line of a person, who is asked or shown what belongs to it.
func (s *session) typedByHand(line string, t config.Typed, w io.Writer) error {
	if name := cryptoCA(line, "enroll"); name != "" && len(t.Changes) > 0 {
		last := len(t.Changes) - 1 // what the line finishes of a sub-mode acts before
		if err := s.typed(config.Typed{Changes: t.Changes[:last]}, w); err != nil {
			return err
		}
		t.Changes = t.Changes[last:]
		return s.enroll(name, t, w)
	}
	err := s.typed(t, w)
	if name := cryptoCA(line, "export"); name != "" && err == nil {
		err = s.showIdentity(name, w)
	}
	return err
}

// mistaken makes the answer to a mistyped line.
func mistaken(found config.Diagnostics) error {
	var b strings.Builder
	for i, d := range found {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(d.Marked())
	}
	return mistakeError(b.String())
}

// typed carries out what a line has finished.
func (s *session) typed(t config.Typed, w io.Writer) error {
	var err error
	for _, lines := range t.Changes {
		err = errors.Join(err, s.change(lines, w))
	}
	if t.Leave {
		s.leave()
	}
	return err
}

func (s *session) leave() { s.edit, s.before = nil, nil }

// change makes a finished change. When it is refused, nothing of it remains.
func (s *session) change(lines []string, w io.Writer) error {
	missing, err := s.x.keeper.Append(s.who, lines)
	if err != nil {
		var found config.Diagnostics
		if errors.As(err, &found) {
			err = mistaken(found)
		}
		if len(lines) > 1 {
			err = fmt.Errorf("%w\nNothing of what was typed in this mode was taken", err)
		}
		return err
	}
	return tell(missing, w)
}

// tell says what keeps the running configuration from being in force.
func tell(missing config.Diagnostics, w io.Writer) error {
	if len(missing) == 0 {
		return nil
	}
	more := ""
	if n := len(missing) - 1; n > 0 {
		more = fmt.Sprintf(" (and %d more: show configuration missing)", n)
	}
	_, err := fmt.Fprintf(w, "INFO: not in force yet, the configuration is not complete: %s%s\n", observe.Clean(missing[0].Message), more)
	return err
}

// finish closes the sub-mode that stands open, so that its settings act.
func (s *session) finish(w io.Writer) error {
	if s.edit == nil || s.edit.Global() {
		return nil
	}
	typed, mistakes := s.edit.Line(s.x.keeper.Running(), "end")
	if len(mistakes) > 0 {
		return mistaken(mistakes)
	}
	typed.Leave = false
	return s.typed(typed, w)
}

var base64Line = regexp.MustCompile(`^[A-Za-z0-9+/]+=*$`)

// certificateLine says whether a line may belong to a certificate: in a configuration that is pasted whole, the next command may follow
// where the state directory has the certificate.
func (s *session) certificateLine(line string) bool {
	return line == "" || strings.HasPrefix(line, "-----") || (base64Line.MatchString(line) && (len(line) >= 20 || len(s.body) > 1))
}

func endOfBody(line string) bool { return strings.EqualFold(strings.TrimSpace(line), "quit") }

// bodyLine takes a line of a certificate, up to quit.
func (s *session) bodyLine(ctx context.Context, line string, w io.Writer) error {
	text := strings.TrimSpace(line)
	quit := endOfBody(text)
	if !quit && s.certificateLine(text) {
		if s.body = append(s.body, text); len(s.body) > maxBody {
			s.body = nil
			return &CommandError{Text: fmt.Sprintf("%% A certificate has at most %d lines", maxBody)}
		}
		return nil
	}
	body := s.body[1:]
	typed, mistakes := s.edit.Line(s.x.keeper.Running(), append(s.body, "quit")...)
	s.body = nil
	var err error
	if len(mistakes) > 0 {
		err = mistaken(mistakes)
	} else if s.bodyAsks && quit && len(body) > 0 {
		return s.accept(body, typed, w)
	} else if err = s.typed(typed, w); err == nil {
		_, err = io.WriteString(w, fingerprints(body))
	}
	if !quit {
		err = errors.Join(err, s.Run(ctx, line, w))
	}
	return err
}

// help lists what may stand at the end of a line of configuration mode: its commands, then those of privileged mode.
func (s *session) help(text string) []keyword.Candidate {
	if privileged := withoutDo(text + "?"); privileged != text+"?" {
		return s.x.tree.Help(strings.TrimSuffix(privileged, "?"))
	}
	found := s.edit.Help(s.x.keeper.Running(), text)
	if len(found) == 0 || (len(strings.Fields(text)) == 0 && s.edit.Global()) {
		known := map[string]bool{}
		for _, c := range found {
			known[c.Text] = true
		}
		for _, c := range s.x.tree.Help(text) {
			if !known[c.Text] {
				found = append(found, c)
			}
		}
	}
	return found
}
