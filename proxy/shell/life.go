package shell

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"imeproxy/proxy/config"
	"imeproxy/proxy/config/keyword"
	"imeproxy/proxy/observe"
	"imeproxy/proxy/revision"
)

// lines is an answer of plain lines.
type lines []string

// Text gives the lines.
func (l lines) Text() string {
	if len(l) == 0 {
		return ""
	}
	return strings.Join(l, "\n") + "\n"
}

// MarshalJSON gives one document, as every command does.
func (l lines) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Lines []string `json:"lines"`
	}{append([]string{}, l...)})
}

// history is the answer to `show configuration history`.
type history struct {
	Former []revision.Former `json:"former"`
}

// Text gives one configuration a line.
func (h history) Text() string {
	if len(h.Former) == 0 {
		return "No configuration has been replaced yet\n"
	}
	var b strings.Builder
	for _, f := range h.Former {
		fmt.Fprintf(&b, "%2d  replaced %s by %s\n", f.Number, f.Saved.Format("2006-01-02 15:04:05 MST"), observe.Clean(f.Who))
	}
	return b.String()
}

// configurationCommands are those that change, save and compare the configuration.
func (x *executor) configurationCommands() []entry {
	k := x.keeper
	write := func(s *session, _ keyword.Args) (observe.View, error) { return s.save() }
	sections := "{all|" + strings.Join(config.SectionNames(), "|") + "}"
	return []entry{
		{usage: "configure terminal", help: "Change the configuration by typing", run: enterConfiguration},
		{usage: "configure replace FILE [check]", pattern: "configure replace {former <number:1-10>|<file:WORD>} [check]", help: "Put a file in the place of the whole configuration, or only look whether that could be done", run: replaceConfiguration},
		{usage: "configure replace former NUMBER [check]", pattern: "configure replace former <number:1-10> [check]", help: "Go back to a configuration of show configuration history", run: replaceConfiguration},
		{usage: "clear configure SECTION", pattern: "clear configure " + sections, help: "Remove a section of the configuration, or all of it", run: clearConfiguration},
		{usage: "write memory", pattern: "write [memory]", help: "Save the running configuration", run: write},
		{usage: "write terminal", help: "Show the running configuration", run: runningConfig(x.backend)},
		{usage: "write erase [noconfirm]", help: "Remove the saved configuration: the next start has none", live: eraseConfiguration},
		{usage: "copy [/noconfirm] running-config startup-config", help: "Save the running configuration", run: write},
		{usage: "copy startup-config running-config", help: "Go back to the saved configuration", run: func(s *session, _ keyword.Args) (observe.View, error) {
			c, err := k.Startup()
			if err != nil {
				return nil, err
			}
			return lines{}, k.Replace(s.who, c)
		}},
		{usage: "commit confirmed MINUTES", pattern: "commit confirmed <minutes:1-120>", help: "Take the changes of this session back unless they are confirmed in time", run: commitConfirmed},
		{usage: "uc-ime wizard", help: "Questions that make a proxy", run: startWizard},
		{usage: "commit", help: "Confirm the changes", run: func(s *session, _ keyword.Args) (observe.View, error) { return lines{}, k.Confirm(s.who) }},
		{usage: "show startup-config", help: "The configuration that was saved", run: func(*session, keyword.Args) (observe.View, error) {
			c, err := k.Startup()
			if err != nil {
				return nil, err
			}
			return observe.StartupConfig{Config: c.String()}, nil
		}},
		{usage: "show configuration diff", help: "What has been changed since the configuration was saved", run: func(*session, keyword.Args) (observe.View, error) {
			c, err := k.Startup()
			if err != nil {
				return nil, err
			}
			return lines(config.Difference(c, k.Running())), nil
		}},
		{usage: "show configuration missing", help: "What the running configuration lacks to be in force", run: func(*session, keyword.Args) (observe.View, error) {
			out := lines{}
			for _, d := range k.Missing() {
				out = append(out, observe.Clean(d.Message)+": "+observe.Clean(d.Hint))
			}
			if t := k.Trial(); !t.IsZero() {
				out = append(out, "on trial: taken back at "+t.Format("15:04:05")+" unless commit is entered")
			}
			if len(k.Missing()) == 0 {
				out = append(out, "the running configuration is in force")
			}
			for _, d := range k.Running().Check().Warnings() {
				out = append(out, "warning: "+observe.Clean(d.Message))
			}
			return out, nil
		}},
		{usage: "show configuration history", help: "Configurations that were replaced, with when and by whom", run: func(*session, keyword.Args) (observe.View, error) {
			h, err := k.History()
			return history{Former: append([]revision.Former{}, h...)}, err
		}},
	}
}

func enterConfiguration(s *session, _ keyword.Args) (observe.View, error) {
	if s.edit == nil {
		s.edit, s.before = new(config.Edit), s.x.keeper.Running()
	}
	return lines{}, nil
}

// save writes the running configuration; a sub-mode that stands open acts first.
func (s *session) save() (observe.View, error) {
	var said strings.Builder
	if err := s.finish(&said); err != nil {
		return nil, err
	}
	comments := s.x.keeper.Comments()
	if err := s.x.keeper.Save(s.who); err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(s.x.keeper.Running().String()))
	out := lines{"Building configuration...", fmt.Sprintf("Cryptochecksum: %x %x %x %x", sum[0:4], sum[4:8], sum[8:12], sum[12:16])}
	if comments > 0 {
		out = append(out, "WARNING: "+observe.Count(comments, "comment line")+" of the former file left out of the new one: comments are no part of a configuration. The former file is kept, see show configuration history")
	}
	return append(out, "[OK]"), nil
}

// eraseConfiguration makes the saved configuration an empty one, which acts with the next reload. The history keeps what it was.
func eraseConfiguration(ctx context.Context, s *session, args keyword.Args, w io.Writer) error {
	erase := func(_ context.Context, w io.Writer) error {
		if err := s.x.keeper.Store(s.who, new(config.Config)); err != nil {
			return err
		}
		_, err := io.WriteString(w, "[OK]\nThe configuration that runs stays as it is until reload; show configuration history has the one that was erased\n")
		return err
	}
	switch {
	case args.Has("noconfirm"):
		return erase(ctx, w)
	case !asks(ctx):
		return &CommandError{Text: "% Nobody can be asked here: write erase noconfirm does it without questions"}
	}
	s.confirm("Erase configuration in flash memory?", erase)
	return nil
}

func replaceConfiguration(s *session, args keyword.Args) (observe.View, error) {
	k := s.x.keeper
	var next *config.Config
	var err error
	if args.Has("former") {
		next, err = k.Former(args.Int("number"))
	} else {
		name := strings.TrimPrefix(strings.TrimPrefix(args.Text("file"), "disk0:"), "/disk0/")
		if s.remote && !filepath.IsLocal(name) { // what is wrong in a file is told with its lines: that must be no way to read others
			return nil, errors.New("a file of disk0: is expected: other files can be named at the control socket alone")
		}
		next, err = k.Read(name)
	}
	if err != nil {
		return nil, err
	}
	change := lines(config.Difference(k.Running(), next))
	if args.Has("check") {
		return change, nil
	}
	if s.edit != nil {
		s.edit.Abandon()
	}
	return change, k.Replace(s.who, next)
}

func clearConfiguration(s *session, args keyword.Args) (observe.View, error) {
	var said strings.Builder
	missing, found, err := s.x.keeper.Remove(s.who, args[2].Text)
	if err == nil && found {
		err = tell(missing, &said)
	}
	return told(said.String()), err
}

// told makes an answer of what was written.
func told(text string) lines {
	if text == "" {
		return lines{}
	}
	return strings.Split(strings.TrimSuffix(text, "\n"), "\n")
}

// commitConfirmed begins a trial: what is gone back to is the configuration that stood when this session entered configuration mode.
func commitConfirmed(s *session, args keyword.Args) (observe.View, error) {
	if s.edit == nil {
		return nil, &CommandError{Text: "% Enter configure terminal first: what is taken back is what was changed since"}
	}
	var said strings.Builder
	if err := s.finish(&said); err != nil {
		return nil, err
	}
	d := time.Duration(args.Int("minutes")) * time.Minute
	if err := s.x.keeper.Try(s.who, s.before, d); err != nil {
		return nil, err
	}
	return lines{"The configuration goes back to what it was before this session in " + observe.Count(args.Int("minutes"), "minute") + ", or when the session ends, unless commit is entered"}, nil
}

// fingerprints says which certificates were pasted, in PEM or as bare base64.
func fingerprints(body []string) string {
	text := strings.Join(body, "\n")
	if text != "" && !strings.Contains(text, "-----BEGIN") {
		text = "-----BEGIN CERTIFICATE-----\n" + text + "\n-----END CERTIFICATE-----\n"
	}
	var b strings.Builder
	for rest := []byte(text); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return b.String()
		}
		sum := sha256.Sum256(block.Bytes)
		fmt.Fprintf(&b, "INFO: Certificate has the following attributes:\nFingerprint (SHA-256): %s\n", hex.EncodeToString(sum[:]))
	}
}
