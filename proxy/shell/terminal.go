package shell

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"golang.org/x/term"
)

// more is what a full page ends with.
const more = "<--- More --->"

// screen is a terminal in raw mode: lines are edited, completed and paged on it.
type screen struct {
	con   Console
	ctx   context.Context
	c     Dialogue
	keys  *keyReader
	term  *term.Terminal
	pager int // lines of a page; 0: none, -1: the terminal's own
	lost  error
}

// keyReader gives what is typed, with the keys of an ASA that the line editor does not know written in those that it knows.
type keyReader struct {
	r    io.Reader
	held []byte // typed and not yet taken
	cut  bool   // no key will come any more: the terminal is gone
}

const (
	ctrlC = 3
	ctrlU = 21 // the line editor: forget the line
	ctrlZ = 26
)

func (k *keyReader) fill() error {
	if len(k.held) > 0 {
		return nil
	}
	b := make([]byte, 4096)
	n, err := k.r.Read(b)
	for _, key := range b[:n] {
		switch key {
		case ctrlC:
			k.held = append(k.held, ctrlU, '\r')
		case ctrlZ:
			k.held = append(k.held, append([]byte{ctrlU}, "end\r"...)...)
		default:
			k.held = append(k.held, key)
		}
	}
	if n > 0 {
		return nil
	}
	k.cut = true
	return err
}

func (k *keyReader) Read(p []byte) (int, error) {
	if err := k.fill(); err != nil {
		return 0, err
	}
	n := copy(p, k.held)
	k.held = k.held[n:]
	return n, nil
}

// key gives one byte, for the pager.
func (k *keyReader) key() (byte, error) {
	if err := k.fill(); err != nil {
		return 0, err
	}
	b := k.held[0]
	k.held = k.held[1:]
	return b, nil
}

// Interact is a session at a terminal in raw mode, whose Size must be given, up to `exit` or the end of In.
func (con Console) Interact(ctx context.Context, c Dialogue) error {
	s := &screen{con: con, ctx: ctx, c: c, keys: &keyReader{r: con.In}, pager: -1}
	s.term = term.NewTerminal(struct {
		io.Reader
		io.Writer
	}{s.keys, con.Out}, "")
	s.term.AutoCompleteCallback = s.complete
	s.term.SetBracketedPasteMode(true)
	defer s.term.SetBracketedPasteMode(false)
	if _, err := io.WriteString(s.term, c.Greeting()); err != nil {
		return fmt.Errorf("output: %w", err)
	}
	for {
		width, height := con.Size()
		_ = s.term.SetSize(width, height)
		s.term.SetPrompt(c.Prompt())
		line, err := s.term.ReadLine()
		switch {
		case s.lost != nil:
			return s.lost
		case errors.Is(err, io.EOF) && s.keys.cut: // what was not finished is forgotten
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
		if done, err := s.run(line); done || err != nil {
			return err
		}
	}
}

// run carries out a line and shows its output page by page.
func (s *screen) run(line string) (done bool, err error) {
	var out strings.Builder
	r, err := s.c.Run(s.ctx, line, &out)
	if err != nil {
		return true, err
	}
	if n, ok := pagerLines(line); ok && r.Exit == 0 {
		s.pager = n
	}
	text := out.String()
	if r.Exit != 0 {
		text += r.Error + "\n"
	}
	return r.Closed, s.page(text)
}

// pagerLines reads `terminal pager N`, which concerns this end alone.
func pagerLines(line string) (int, bool) {
	f := strings.Fields(strings.ToLower(line))
	if len(f) != 3 || !strings.HasPrefix("terminal", f[0]) || !strings.HasPrefix("pager", f[1]) {
		return 0, false
	}
	n, err := strconv.Atoi(f[2])
	return n, err == nil
}

func (s *screen) page(text string) error {
	page := s.pager
	if _, height := s.con.Size(); page < 0 {
		page = max(1, height-1)
	}
	all := strings.SplitAfter(text, "\n")
	if all[len(all)-1] == "" {
		all = all[:len(all)-1]
	}
	shown := 0
	for _, line := range all {
		if page > 0 && shown == page {
			next, err := s.askMore()
			if err != nil || next == 0 {
				return err
			}
			shown = page - min(next, page)
		}
		if _, err := io.WriteString(s.con.Out, strings.TrimSuffix(line, "\n")+"\r\n"); err != nil {
			return fmt.Errorf("output: %w", err)
		}
		shown++
	}
	return nil
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
	case key == 'q' || key == 'Q' || key == ctrlU:
		if key == ctrlU && len(s.keys.held) > 0 { // Ctrl-C came as two keys
			s.keys.held = s.keys.held[1:]
		}
		return 0, nil
	}
	return 1 << 30, nil
}

// complete answers Tab and `?`, which act at once and keep the line.
func (s *screen) complete(line string, pos int, key rune) (string, int, bool) {
	if p := s.c.Prompt(); (!strings.HasSuffix(p, "# ") && !strings.HasSuffix(p, "> ")) || (key != '\t' && key != '?') {
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
