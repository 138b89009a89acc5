package shell

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"imeproxy/proxy/config/keyword"
	"imeproxy/proxy/observe"
)

// MaxLine bounds a command line in bytes.
const MaxLine = 16 << 10

// Caller is who sits at the other end of a session.
type Caller struct {
	UID, GID uint32
	PID      int32
}

// Executor makes sessions. Safe for concurrent use.
type Executor interface {
	NewSession(c Caller) Session
}

// Session is one operator's dialogue; its methods are called by one goroutine at a time.
type Session interface {
	// Greeting is what a terminal shows before the first prompt; empty or ended by a line feed.
	Greeting() string
	// Prompt is what stands before the next line, "hostname# ".
	Prompt() string
	// Run carries one line out and writes its output. A *CommandError is a line that is wrong; ErrExit ends the session.
	Run(ctx context.Context, line string, w io.Writer) error
}

type executor struct {
	backend  Backend
	commands []entry
	tree     *keyword.Tree[action]
}

// NewExecutor makes the command table over a running appliance.
func NewExecutor(b Backend) Executor { return newExecutor(b, time.Now) }

func newExecutor(b Backend, now func() time.Time) *executor {
	x := &executor{backend: b, tree: new(keyword.Tree[action]), commands: commands(b, now)}
	x.commands = append(x.commands,
		entry{usage: "help", help: "List of the commands", run: x.help},
		entry{
			usage: "exit", pattern: "{exit|quit|logout}", help: "End the session",
			run: func(keyword.Args) (observe.View, error) { return nil, ErrExit },
		})
	for word, text := range keywordHelp {
		x.tree.Describe(word, text)
	}
	for _, c := range x.commands {
		pattern := c.pattern
		if pattern == "" {
			pattern = c.usage
		}
		x.tree.Add(pattern, c.help, c.run)
	}
	return x
}

// NewSession starts a dialogue in privileged mode: whoever may open the socket may use every command.
func (x *executor) NewSession(Caller) Session { return &session{x: x} }

type session struct{ x *executor }

func (s *session) Greeting() string {
	var b strings.Builder
	for line := range strings.Lines(s.x.backend.Banner()) {
		b.WriteString(observe.Clean(strings.TrimRight(line, "\n")) + "\n")
	}
	return b.String()
}

func (s *session) Prompt() string {
	name := s.x.backend.Hostname()
	if name == "" {
		name = "imeproxy"
	}
	return observe.Clean(name) + "# "
}

func (s *session) Run(_ context.Context, line string, w io.Writer) error {
	if len(line) > MaxLine {
		return &CommandError{Text: fmt.Sprintf("%% Line is longer than %d bytes", MaxLine)}
	}
	// One blank for a tab and one "?" for a control character keep the columns of error markers right.
	line = observe.Clean(strings.TrimRight(strings.ReplaceAll(line, "\t", " "), " \r\n"))
	if t := strings.TrimLeft(line, " "); t == "" || t[0] == '!' {
		return nil
	}
	text, err := s.x.output(line)
	if err != nil {
		return err
	}
	_, err = io.WriteString(w, text)
	return err
}

func (x *executor) output(line string) (string, error) {
	text, rest, filtered := splitFilter(line)
	if before, ok := strings.CutSuffix(line, "?"); ok && len(strings.Fields(rest)) < 2 { // in an expression "?" has its own meaning
		return x.question(before)
	}
	run, args, e := x.tree.MatchLine(text)
	if e != nil {
		return "", parseError(line, e)
	}
	var f filter
	if filtered {
		var err error
		if f, err = parseFilter(line, rest); err != nil {
			return "", err
		}
	}
	v, err := run(args)
	if err != nil {
		return "", err
	}
	return f.render(v)
}

// question answers `?`: what may stand at the end of the text.
func (x *executor) question(text string) (string, error) {
	var found []keyword.Candidate
	if _, rest, filtered := splitFilter(text); filtered {
		found = filterTree.Help(rest)
	} else {
		found = x.tree.Help(text)
	}
	if len(found) == 0 {
		return "", &CommandError{Text: "% Unrecognized command"}
	}
	width := 0
	for _, c := range found {
		width = max(width, len(c.Text))
	}
	var b strings.Builder
	for _, c := range found {
		b.WriteString(strings.TrimRight(fmt.Sprintf("  %-*s  %s", width, c.Text, c.Help), " ") + "\n")
	}
	return b.String(), nil
}

// helpList is the answer to `help`.
type helpList struct {
	Commands []helpLine `json:"commands"`
}

type helpLine struct {
	Usage string `json:"usage"`
	Help  string `json:"help"`
}

func (x *executor) help(keyword.Args) (observe.View, error) {
	var l helpList
	for _, c := range x.commands {
		l.Commands = append(l.Commands, helpLine{c.usage, c.help})
	}
	return l, nil
}

// Text gives one command a line.
func (l helpList) Text() string {
	width := 0
	for _, c := range l.Commands {
		width = max(width, len(c.Usage))
	}
	var b strings.Builder
	for _, c := range l.Commands {
		fmt.Fprintf(&b, "  %-*s  %s\n", width, c.Usage, c.Help)
	}
	return b.String()
}
