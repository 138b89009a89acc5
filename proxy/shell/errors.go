package shell

import (
	"errors"
	"strings"

	"imeproxy/proxy/config/keyword"
	"imeproxy/proxy/observe"
)

// Errors of the socket and its two ends.
var (
	ErrInUse     = errors.New("another imeproxy runs already and answers on the control socket")
	ErrNoDaemon  = errors.New("no imeproxy daemon answers")
	ErrForbidden = errors.New("only root and the daemon's own user may use the control socket")
	ErrTooLong   = errors.New("request is too long")
	ErrMalformed = errors.New("malformed request")
	ErrBusy      = errors.New("too many shells are connected")
	ErrIdle      = errors.New("no command came")
)

// ErrExit ends a session at the operator's wish; it is no failure.
var ErrExit = errors.New("exit")

// CommandError is a line that cannot be carried out, in an ASA's words.
type CommandError struct {
	Line string // as typed, control characters replaced; "" = no marker is printed
	Col  int    // column of the first wrong word in characters, from 1
	Text string // "% Invalid input detected at '^' marker."
	Hint string // what would be right; may be empty
}

// Error gives the line, the marker under the first wrong word and the message, as an ASA prints them, without a last line feed.
func (e *CommandError) Error() string {
	text := "ERROR: " + e.Text
	if e.Hint != "" {
		text += "\n" + observe.Clean(e.Hint)
	}
	if e.Line == "" || e.Col < 1 {
		return text
	}
	return e.Line + "\n" + strings.Repeat(" ", e.Col-1) + "^\n" + text
}

// mistakeError is the answer to a line of the configuration, which is told whole.
type mistakeError string

func (e mistakeError) Error() string { return string(e) }

func invalidAt(line string, col int) *CommandError {
	return &CommandError{Line: line, Col: col, Text: "% Invalid input detected at '^' marker."}
}

// parseError says in an ASA's words what the keyword trie found wrong.
func parseError(line string, e *keyword.Error) *CommandError {
	switch e.Kind {
	case keyword.Incomplete:
		return &CommandError{Line: line, Col: e.Col, Text: "% Incomplete command", Hint: "expected " + keyword.List(e.Expected)}
	case keyword.Ambiguous:
		return &CommandError{Text: "% Ambiguous command:  \"" + observe.Clean(strings.TrimSpace(line)) + "\"", Hint: "it may be " + keyword.List(e.Expected)}
	default:
		wrong := invalidAt(line, e.Col)
		wrong.Hint = expected(line, e)
		return wrong
	}
}

// fewWords is how many words a hint lists.
const fewWords = 8

// expected says what would be right in the place of a word; e.Word stays out of it, for it may be a password.
func expected(line string, e *keyword.Error) string {
	switch {
	case e.Kind == keyword.Invalid:
		return e.Reason
	case strings.TrimSpace(string([]rune(line)[:min(e.Col-1, len([]rune(line)))])) == "":
		return "no such command: `?` lists those that there are"
	case len(e.Expected) == 1 && e.Expected[0].Text == keyword.EndOfLine:
		return "the command ends before it"
	case len(e.Expected) > fewWords:
		return "`?` in its place lists what may stand there"
	}
	return "expected " + keyword.List(e.Expected)
}
