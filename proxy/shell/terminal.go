package shell

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/term"
)

// more is what a full page ends with.
const more = "<--- More --->"

// screen is a terminal in raw mode: lines are edited, completed and paged on it.
type screen struct {
	con   Console
	ctx   context.Context
	c     Dialogue
	keys  *keyboard
	term  *term.Terminal
	past  past
	pager int // lines of a page; 0: none, -1: the terminal's own
	lost  error
}

// Interact is a session at a terminal in raw mode, whose Size must be given, up to `exit` or the end of In.
func (con Console) Interact(ctx context.Context, c Dialogue) error {
	s := &screen{con: con, ctx: ctx, c: c, keys: newKeyboard(con.In), pager: -1}
	defer s.keys.close()
	s.term = term.NewTerminal(struct {
		io.Reader
		io.Writer
	}{s.keys, con.Out}, "")
	s.term.AutoCompleteCallback = s.complete
	s.term.History = &s.past
	s.term.SetBracketedPasteMode(true)
	defer s.term.SetBracketedPasteMode(false)
	defer s.watchSize()()
	if _, err := io.WriteString(s.term, c.Greeting()); err != nil {
		return fmt.Errorf("output: %w", err)
	}
	for {
		_ = s.term.SetSize(con.Size())
		line, err := s.readLine()
		switch {
		case s.lost != nil:
			return s.lost
		case errors.Is(err, io.EOF) && s.keys.gone(): // what was not finished is forgotten
			return nil
		case errors.Is(err, io.EOF): // Ctrl-D
			if err := con.leave(ctx, c); err != nil {
				return err
			}
			_, err = io.WriteString(con.Out, "\r\n")
			return err
		case err != nil && !errors.Is(err, term.ErrPasteIndicator):
			return fmt.Errorf("input: %w", err)
		}
		if done, err := s.run(line, !errors.Is(err, term.ErrPasteIndicator)); done || err != nil {
			return err
		}
	}
}

// readLine reads a line, or a password that is not shown.
func (s *screen) readLine() (string, error) {
	prompt := s.c.Prompt()
	if s.c.Secret() {
		defer s.keys.forgotten()
		return s.term.ReadPassword(prompt)
	}
	s.term.SetPrompt(prompt)
	s.past.silent = !isCommandPrompt(prompt)
	line, err := s.term.ReadLine()
	if s.keys.forgotten() && line == "" && s.past.silent {
		line = forget
	}
	return line, err
}

// watchSize keeps the line editor's idea of the window true while a line is typed, until done.
func (s *screen) watchSize() (done func()) {
	over := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-s.con.Resized:
				_ = s.term.SetSize(s.con.Size())
			case <-over:
				return
			}
		}
	})
	return func() { close(over); wg.Wait() }
}

// isCommandPrompt tells the prompts of the modes from questions and from the lines of a certificate.
func isCommandPrompt(p string) bool { return strings.HasSuffix(p, "# ") || strings.HasSuffix(p, "> ") }

// run carries out a line and shows its output page by page as it comes. Ctrl-C interrupts the command and forgets what is not shown yet.
func (s *screen) run(line string, byHand bool) (done bool, err error) {
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	if byHand {
		ctx = WithQuestions(ctx)
	}
	out := newPipe()
	s.keys.begin(func() { cancel(); out.skip() })
	defer s.keys.end()
	var r Result
	var lost error
	var wg sync.WaitGroup
	wg.Go(func() {
		text := ""
		if r, lost = s.c.Run(ctx, line, out); r.Exit != 0 {
			text = r.Error + "\n"
		}
		out.end(text)
	})
	wanted, err := s.page(out, !isDebug(line))
	if !wanted || err != nil {
		cancel()
	}
	out.close()
	wg.Wait()
	if lost != nil {
		return true, lost
	}
	if n, ok := pagerLines(line); ok && r.Exit == 0 {
		s.pager = n
	}
	return r.Closed, err
}

// isDebug says whether a line begins a debug, which is not paged: it shows what happens now.
func isDebug(line string) bool {
	f := strings.Fields(strings.ToLower(line))
	return len(f) > 1 && len(f[0]) > 1 && strings.HasPrefix("debug", f[0])
}

// pagerLines reads `terminal pager [lines] N`, which concerns this end alone.
func pagerLines(line string) (int, bool) {
	f := strings.Fields(strings.ToLower(line))
	if len(f) == 4 && strings.HasPrefix("lines", f[2]) {
		f = append(f[:2], f[3])
	}
	if len(f) != 3 || !strings.HasPrefix("terminal", f[0]) || !strings.HasPrefix("pager", f[1]) {
		return 0, false
	}
	n, err := strconv.Atoi(f[2])
	return n, err == nil
}

// page shows what comes up to its end; false: the operator does not want to see more.
func (s *screen) page(out *pipe, paged bool) (bool, error) {
	page := s.pager
	if _, height := s.con.Size(); page < 0 {
		page = max(1, height-1)
	}
	shown := 0
	for {
		text, ok := out.next()
		if !ok {
			return true, nil
		}
		if paged && page > 0 && shown >= page {
			next, err := s.askMore()
			if err != nil || next == 0 {
				return false, err
			}
			shown = page - min(next, page)
		}
		if _, err := io.WriteString(s.con.Out, strings.ReplaceAll(text, "\n", "\r\n")); err != nil {
			return false, fmt.Errorf("output: %w", err)
		}
		shown += strings.Count(text, "\n")
	}
}

// askMore waits for a key and gives how many lines may follow: 0 ends the output.
func (s *screen) askMore() (int, error) {
	if _, err := io.WriteString(s.con.Out, more); err != nil {
		return 0, fmt.Errorf("output: %w", err)
	}
	key, err := s.keys.key()
	if _, e := io.WriteString(s.con.Out, "\r"+strings.Repeat(" ", len(more))+"\r"); err == nil {
		err = e
	}
	switch {
	case err != nil:
		return 0, fmt.Errorf("terminal: %w", err)
	case key == '\r' || key == '\n':
		return 1, nil
	case key == 'q' || key == 'Q' || key == ctrlC:
		return 0, nil
	}
	return 1 << 30, nil
}

// complete answers Tab and `?`, which act at once and keep the line, and Ctrl-R, which looks for an earlier one.
func (s *screen) complete(line string, pos int, key rune) (string, int, bool) {
	if key == ctrlR {
		found, ok := s.past.search(line)
		return found, len(found), ok
	}
	if !isCommandPrompt(s.c.Prompt()) || (key != '\t' && key != '?') {
		return "", 0, false
	}
	typed, rest := line[:pos], line[pos:]
	if key == '\t' {
		done, err := s.c.Complete(s.ctx, typed)
		if err == nil && done != typed {
			return done + rest, len(done), true
		}
		s.lost = err
		if err != nil {
			return line, pos, true
		}
	} else if _, after, found := strings.Cut(typed, "|"); found && len(strings.Fields(after)) > 1 {
		return "", 0, false // part of an expression
	}
	var out strings.Builder
	r, err := s.c.Run(s.ctx, typed+"?", &out)
	if s.lost = err; err != nil {
		return line, pos, true
	}
	text := s.c.Prompt() + typed
	if key == '?' {
		text += "?"
	}
	text += "\n" + out.String()
	if r.Exit != 0 {
		text += r.Error + "\n"
	}
	_, s.lost = io.WriteString(s.term, text)
	return line, pos, true
}
