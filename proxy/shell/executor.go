package shell

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"imeproxy/proxy/config"
	"imeproxy/proxy/config/keyword"
	"imeproxy/proxy/observe"
)

// MaxLine bounds a command line in bytes.
const MaxLine = 16 << 10

// Caller is who sits at the other end of a session.
type Caller struct {
	UID, GID uint32
	PID      int32
	// Name and From are the user who logged in and the address that he came from; empty at the control socket.
	Name, From string
	// ViewOnly lets the session look at everything and change nothing.
	ViewOnly bool
}

func (c Caller) String() string {
	if c.Name != "" {
		return c.Name + " from " + c.From
	}
	return fmt.Sprintf("uid %d pid %d", c.UID, c.PID)
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
	// Secret says that the next line is a password, which must not be seen.
	Secret() bool
	// Run carries one line out and writes its output. Ending ctx interrupts a command that goes on. A *CommandError is a line that is wrong; ErrExit ends the session.
	Run(ctx context.Context, line string, w io.Writer) error
	// Deed is what the line did that was run last.
	Deed() Deed
	// Complete extends a line that is being typed as far as it is certain (Tab), and lists what may stand at its end.
	Complete(line string) (string, []keyword.Candidate)
	// Close ends the session: what it has not confirmed is taken back.
	Close()
}

type executor struct {
	backend  Backend
	keeper   Keeper // nil: the configuration can only be looked at
	commands []entry
	tree     *keyword.Tree[entry]
}

// NewExecutor makes the command table over a running appliance. With a keeper the configuration can be changed; it may be nil.
func NewExecutor(b Backend, k Keeper) Executor { return newExecutor(b, k, time.Now) }

func newExecutor(b Backend, k Keeper, now func() time.Time) *executor {
	x := &executor{backend: b, keeper: k, tree: new(keyword.Tree[entry]), commands: commands(b, now)}
	if k != nil {
		x.commands = append(x.commands, x.configurationCommands()...)
	}
	x.kinds()
	x.commands = append(x.commands, x.probeCommands()...)
	if t, ok := b.(Tracer); ok {
		x.commands = append(x.commands, x.debugCommands(t.Trace())...)
		x.commands = append(x.commands, x.captureCommands(t.Captures())...)
	}
	if p, ok := b.(PeerServer); ok {
		x.commands = append(x.commands, imeCommands(p)...)
		if k != nil {
			x.commands = append(x.commands, x.imeSettings()...)
			x.commands = append(x.commands, x.customerCommands()...)
		}
	}
	if h, ok := b.(Shunner); ok {
		x.commands = append(x.commands, shunCommands(h)...)
	}
	if r, ok := b.(Restarter); ok {
		x.commands = append(x.commands, reloadCommand(r))
	}
	if m, ok := b.(Machine); ok {
		x.commands = append(x.commands, machineCommands(m)...)
	}
	if f, ok := b.(Storage); ok && k != nil {
		x.commands = append(x.commands, x.copyCommands(f.Disk())...)
	}
	x.commands = append(x.commands,
		entry{
			usage: "terminal pager [lines] LINES", pattern: "terminal pager [lines] <lines:0-10000>", help: "Lines of a page on this terminal; 0: no pages",
			run: func(*session, keyword.Args) (observe.View, error) { return lines{}, nil }, // the terminal's end acts on it
		},
		entry{
			usage: "enable", help: "Enter privileged mode", run: enable,
		},
		entry{
			usage: "disable", help: "Leave privileged mode",
			run: func(s *session, _ keyword.Args) (observe.View, error) {
				s.user = true
				return lines{}, nil
			},
		},
		entry{usage: "help", help: "List of the commands", run: x.help},
		entry{
			usage: "exit", pattern: "{exit|quit|logout}", help: "End the session",
			run: func(*session, keyword.Args) (observe.View, error) { return nil, ErrExit },
		})
	for word, text := range keywordHelp {
		x.tree.Describe(word, text)
	}
	for _, c := range x.commands {
		pattern := c.pattern
		if pattern == "" {
			pattern = c.usage
		}
		if rest, ok := strings.CutPrefix(pattern, "show "); ok {
			pattern = "show=sh " + rest // every hand that knows an ASA types sh, which shun begins with too
		}
		x.tree.Add(pattern, c.help, c)
	}
	return x
}

// NewSession starts a dialogue in privileged mode: whoever may open the socket may use every command. Over SSH an enable password must be given first
// where there is one.
func (x *executor) NewSession(c Caller) Session {
	remote := c.Name != ""
	return &session{x: x, who: c.String(), viewOnly: c.ViewOnly, remote: remote, user: remote && x.enablePassword() != ""}
}

// session is one operator's dialogue: the mode that it stands in lives here.
type session struct {
	x        *executor
	who      string
	remote   bool           // over SSH
	viewOnly bool           // looks and changes nothing
	user     bool           // after disable: a few commands only
	edit     *config.Edit   // nil: not in configuration mode
	before   *config.Config // the running configuration when configuration mode was entered
	wizard   *wizard        // nil: it asks nothing
	bodyAsks bool           // whether the certificate is the right one is asked
	ask      *ask           // nil: nothing was asked
	body     []string       // a command and the lines of its certificate, up to quit; empty: none is read
	deed     Deed           // of the line that was run last
}

func (s *session) Greeting() string {
	var b strings.Builder
	for line := range strings.Lines(s.x.backend.Banner()) {
		b.WriteString(observe.Clean(strings.TrimRight(line, "\n")) + "\n")
	}
	return b.String()
}

func (s *session) Prompt() string {
	switch {
	case s.ask != nil:
		return s.ask.prompt
	case len(s.body) > 0:
		return ""
	case s.wizard != nil:
		return s.wizard.prompt()
	}
	name := s.x.backend.Hostname()
	if s.x.keeper != nil {
		name = s.x.keeper.Running().Hostname
	}
	if name == "" {
		name = "imeproxy"
	}
	if s.edit != nil {
		name += "(" + s.edit.Prompt() + ")"
	}
	if s.user {
		return observe.Clean(name) + "> "
	}
	return observe.Clean(name) + "# "
}

func (s *session) Run(ctx context.Context, line string, w io.Writer) error {
	s.deed = Nothing
	if line == forget { // nothing is done of what was asked about
		s.ask, s.wizard, s.body = nil, nil, nil
		return nil
	}
	if len(line) > MaxLine {
		return &CommandError{Text: fmt.Sprintf("%% Line is longer than %d bytes", MaxLine)}
	}
	if q := s.ask; q != nil {
		s.ask = nil
		return q.answer(ctx, strings.TrimRight(line, "\r\n"), w)
	}
	if len(s.body) > 0 {
		return s.bodyLine(ctx, line, w)
	}
	if s.wizard != nil {
		return s.wizardLine(line, w)
	}
	raw := strings.TrimRight(line, " \r\n")
	if strings.ContainsAny(raw, "\r\n") { // the parser of the configuration would take it for several
		return &CommandError{Text: "% One line at a time is expected"}
	}
	// One blank for a tab and one "?" for a control character keep the columns of error markers right.
	line = observe.Clean(strings.ReplaceAll(raw, "\t", " "))
	if t := strings.TrimLeft(line, " "); t == "" || t[0] == '!' {
		return nil
	}
	s.deed = guess(line)
	if s.edit != nil {
		return s.configure(ctx, raw, line, w)
	}
	return s.command(ctx, line, w)
}

// command carries out a line of privileged mode.
func (s *session) command(ctx context.Context, line string, w io.Writer) error {
	x := s.x
	text, rest, filtered := splitFilter(line)
	if before, ok := strings.CutSuffix(line, "?"); ok && len(strings.Fields(rest)) < 2 { // in an expression "?" has its own meaning
		s.deed = Nothing
		return put(w)(x.question(before))
	}
	c, args, e := x.tree.MatchLine(text)
	if e != nil {
		return parseError(line, e)
	}
	if (s.user && !forUsers(args)) || (s.viewOnly && !forViewers(args)) {
		return invalidAt(line, args[0].Col)
	}
	var f filter
	if filtered {
		var err error
		if f, err = parseFilter(line, rest); err != nil {
			return err
		}
	}
	if s.deed = Act; args[0].Text == "show" {
		s.deed = Look
	}
	if c.live != nil {
		if f.kind == filterJSON || f.kind == filterCount || f.kind == filterBegin {
			return invalidAt(line, len([]rune(rest))-len([]rune(strings.TrimLeft(rest, " "))))
		}
		return follow(ctx, c.live, s, args, f, w)
	}
	v, err := c.run(s, args)
	if err != nil {
		return err
	}
	return put(w)(f.render(v))
}

// put writes a text unless there was none.
func put(w io.Writer) func(string, error) error {
	return func(text string, err error) error {
		if err == nil {
			_, err = io.WriteString(w, text)
		}
		return err
	}
}

// Deed is what the line did that was run last. A command that follows a certificate at once is one, and belongs into the log.
func (s *session) Deed() Deed { return s.deed }

// forUsers says whether a command needs no privilege: it shows nothing of the calls and changes nothing.
func forUsers(args keyword.Args) bool {
	switch args[0].Text {
	case "enable", "exit", "quit", "logout", "help", "terminal":
		return true
	case "show":
		return args.Has("version") || args.Has("clock")
	}
	return false
}

// forViewers says whether a command changes nothing.
func forViewers(args keyword.Args) bool {
	switch args[0].Text {
	case "show", "enable", "disable", "exit", "quit", "logout", "help", "terminal":
		return true
	}
	return false
}

// Secret says that a password is asked for.
func (s *session) Secret() bool { return s.ask != nil && s.ask.secret }

// Complete asks the tables of the mode that the session stands in.
func (s *session) Complete(line string) (string, []keyword.Candidate) {
	line = observe.Clean(strings.ReplaceAll(line, "\t", " "))
	if len(s.body) > 0 || s.ask != nil || s.wizard != nil || len(line) > MaxLine {
		return line, nil
	}
	if _, rest, filtered := splitFilter(line); filtered {
		done, found := filterTree.Complete(rest)
		return line[:len(line)-len(strings.TrimLeft(rest, " "))] + strings.TrimLeft(done, " "), found
	}
	if s.edit == nil {
		return s.x.tree.Complete(line)
	}
	done, found := s.edit.Complete(s.x.keeper.Running(), line)
	other, more := s.x.tree.Complete(line)
	switch {
	case len(found) == 0:
		return other, more
	case len(more) > 0 && !strings.Contains(strings.TrimLeft(line, " "), " "): // a first word of either table
		n := 0
		for n < len(done) && n < len(other) && done[n] == other[n] {
			n++
		}
		return done[:n], append(found, more...)
	}
	return done, found
}

// Close leaves configuration mode. A sub-mode that was not left is forgotten: its commands have never acted.
func (s *session) Close() {
	if s.x.keeper != nil {
		s.x.keeper.Cancel(s.who)
	}
}

// question answers `?`: what may stand at the end of the text.
func (x *executor) question(text string) (string, error) {
	var found []keyword.Candidate
	if _, rest, filtered := splitFilter(text); filtered {
		found = filterTree.Help(rest)
	} else {
		found = x.tree.Help(text)
	}
	return helpText(found)
}

// helpText is the list that `?` shows.
func helpText(found []keyword.Candidate) (string, error) {
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

func (x *executor) help(*session, keyword.Args) (observe.View, error) {
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
