package shell

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"

	"imeproxy/proxy/config"
	"imeproxy/proxy/config/keyword"
	"imeproxy/proxy/disk"
	"imeproxy/proxy/observe"
	"imeproxy/proxy/remote"
	"imeproxy/proxy/revision"
)

// place is an end of `copy`: exactly one of the fields is set.
type place struct {
	config string // running-config or startup-config
	file   string // of disk0:
	remote *remote.Place
}

// readPlace reads a place as it was typed.
func readPlace(text string) (place, error) {
	switch {
	case strings.HasPrefix("running-config", strings.ToLower(text)) && len(text) > 1:
		return place{config: "running-config"}, nil
	case strings.HasPrefix("startup-config", strings.ToLower(text)) && len(text) > 1:
		return place{config: "startup-config"}, nil
	case remote.IsURL(text):
		p, err := remote.Parse(text)
		return place{remote: &p}, err
	case strings.HasPrefix(text, "disk0:"):
		name, err := disk.Name(text)
		return place{file: name}, err
	}
	return place{}, errors.New("disk0:NAME, scp://USER@HOST/PATH or sftp://USER@HOST/PATH is expected")
}

// checkPlace is the kind of the arguments of copy that are no keywords.
func checkPlace(text string) error {
	p, err := readPlace(text)
	if err == nil && p.config != "" {
		err = errors.New("a file is expected")
	}
	return err
}

// copying is one `copy`, which may have to ask before it goes on.
type copying struct {
	s        *session
	from, to place
	accepted bool // to write over a file
}

func (x *executor) copyCommands(d *disk.Disk) []entry {
	run := func(ctx context.Context, s *session, args keyword.Args, w io.Writer) error {
		places := args[len(args)-2:]
		from, err1 := readPlace(places[0].Text)
		to, err2 := readPlace(places[1].Text)
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		return (&copying{s: s, from: from, to: to, accepted: args.Has("/noconfirm")}).run(ctx, w)
	}
	return []entry{
		{usage: "copy [/noconfirm] running-config|startup-config PLACE", pattern: "copy [/noconfirm] {running-config|startup-config} <to:PLACE>", help: "Store a configuration, with its secrets, in a file", live: run},
		{usage: "copy [/noconfirm] PLACE running-config|startup-config", pattern: "copy [/noconfirm] <from:PLACE> {running-config|startup-config}", help: "Type the lines of a file, or make it the saved configuration", live: run},
		{usage: "copy [/noconfirm] PLACE PLACE", pattern: "copy [/noconfirm] <from:PLACE> <to:PLACE>", help: "Copy a file within disk0:, from another host or to one", live: run},
		{usage: "dir", pattern: "dir [disk0:]", help: "Files of disk0:", run: func(*session, keyword.Args) (observe.View, error) { return listFiles(d) }},
		{
			usage: "more disk0:FILE", pattern: "more <file:FILE>", help: "What is in a text file",
			run: func(_ *session, args keyword.Args) (observe.View, error) { return moreFile(d, args.Text("file")) },
		},
		{
			usage: "delete [/noconfirm] disk0:FILE", pattern: "delete [/noconfirm] <file:FILE>", help: "Remove a file",
			live: func(ctx context.Context, s *session, args keyword.Args, _ io.Writer) error {
				if args.Has("/noconfirm") || !asks(ctx) {
					return d.Remove(args.Text("file"))
				}
				return s.askDelete(d, args.Text("file"))
			},
		},
	}
}

// askDelete asks which file is to be removed, and whether it is, in an ASA's words.
func (s *session) askDelete(d *disk.Disk, file string) error {
	f, err := d.Stat(file)
	if err != nil {
		return err
	}
	s.ask = &ask{prompt: "Delete filename [" + f.Name + "]? ", answer: func(_ context.Context, line string, _ io.Writer) error {
		if line = strings.TrimSpace(line); line != "" {
			if f, err = d.Stat(line); err != nil {
				return err
			}
		}
		s.confirm("Delete disk0:/"+f.Name+"?", func(context.Context, io.Writer) error { return d.Remove(f.Name) })
		return nil
	}}
	return nil
}

func listFiles(d *disk.Disk) (observe.View, error) {
	all, err := d.List()
	if err != nil {
		return nil, err
	}
	out := observe.Directory{}
	for _, f := range all {
		out.Files = append(out.Files, observe.DirectoryFile{Name: f.Name, Size: f.Size, Modified: f.Modified})
	}
	return out, nil
}

// moreFile shows a text. Passwords in it are masked, as in every answer.
func moreFile(d *disk.Disk, name string) (observe.View, error) {
	f, err := d.Read(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, revision.MaxFile))
	if err != nil {
		return nil, err
	}
	if bytes.IndexByte(text, 0) >= 0 {
		return nil, errors.New("this is no text: fetch it by scp or sftp, or see show capture")
	}
	out := lines{}
	for line := range strings.Lines(string(text)) {
		out = append(out, observe.Clean(strings.ReplaceAll(config.Masked(strings.TrimRight(line, "\r\n")), "\t", " ")))
	}
	return out, nil
}

// run asks what must be known, or copies.
func (c *copying) run(ctx context.Context, w io.Writer) error {
	d := c.s.x.backend.(Storage)
	if c.to.file != "" && !c.accepted && asks(ctx) {
		if _, err := d.Disk().Stat(c.to.file); err == nil {
			c.s.confirm("Do you want to over write?", func(ctx context.Context, w io.Writer) error {
				c.accepted = true
				return c.run(ctx, w)
			})
			_, err := fmt.Fprintf(w, "%%Warning:There is a file already existing with this name: disk0:/%s\n", c.to.file)
			return err
		}
	}
	for _, p := range []*remote.Place{c.from.remote, c.to.remote} {
		if p == nil || p.Password != "" {
			continue
		}
		if !asks(ctx) {
			return errors.New("nobody can be asked for the password here: give it as scp://USER:PASSWORD@HOST/PATH, it is kept out of the log")
		}
		c.s.ask = &ask{prompt: "Password for " + observe.Clean(p.User+"@"+p.Host) + ": ", secret: true, answer: func(ctx context.Context, line string, w io.Writer) error {
			if p.Password = line; line == "" {
				return errors.New("nothing was copied")
			}
			return c.run(ctx, w)
		}}
		return nil
	}
	began := time.Now()
	n, err := c.copy(ctx, w)
	var unknown *remote.UnknownHost
	if errors.As(err, &unknown) && asks(ctx) {
		if _, err := fmt.Fprintf(w, "The key of host %s is not known. Its fingerprint is %s.\n", observe.Clean(unknown.Host), unknown.Fingerprint); err != nil {
			return err
		}
		c.s.yesNo("Is this the right host?", func(ctx context.Context, yes bool, w io.Writer) error {
			if !yes {
				return nil
			}
			if err := d.KnownHosts().Accept(unknown); err != nil {
				return err
			}
			return c.run(ctx, w)
		})
		return nil
	}
	if err != nil && ctx.Err() != nil {
		_, err := io.WriteString(w, "\nInterrupted: a file on another host may be there in part\n")
		return err
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "\n%d bytes copied in %.1f secs\n", n, time.Since(began).Seconds())
	return err
}

// progress writes a mark for each 256 KB.
type progress struct {
	w    io.Writer
	n, m int64
	r    io.Reader
	to   io.Writer
}

const perMark = 256 << 10

func (p *progress) count(n int) error {
	for p.n += int64(n); p.m <= p.n/perMark; p.m++ {
		if _, err := io.WriteString(p.w, "!"); err != nil {
			return err
		}
	}
	return nil
}

func (p *progress) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	if n > 0 {
		err = errors.Join(p.count(n), err)
		if errors.Is(err, io.EOF) {
			err = io.EOF
		}
	}
	return n, err
}

func (p *progress) Write(b []byte) (int, error) {
	n, err := p.to.Write(b)
	return n, errors.Join(err, p.count(n))
}

// copy moves the bytes.
func (c *copying) copy(ctx context.Context, w io.Writer) (int64, error) {
	d := c.s.x.backend.(Storage)
	var source io.Reader
	switch {
	case c.from.config != "":
		text, err := c.text()
		if err != nil {
			return 0, err
		}
		source = strings.NewReader(text)
	case c.from.file != "":
		f, err := d.Disk().Read(c.from.file)
		if err != nil {
			return 0, err
		}
		defer f.Close()
		source = f
	}
	p := &progress{w: w}
	switch {
	case c.to.config != "":
		var text bytes.Buffer
		p.to = &capped{&text, revision.MaxFile}
		if err := c.pour(ctx, source, p); err != nil {
			return 0, err
		}
		return p.n, c.configure(text.String(), w)
	case c.to.file != "":
		out, err := d.Disk().Create(c.to.file)
		if err != nil {
			return 0, err
		}
		defer out.Abort()
		p.to = out
		if err := c.pour(ctx, source, p); err != nil {
			return 0, err
		}
		return p.n, out.Commit()
	case source == nil:
		return 0, errors.New("one of the two must be here: disk0:, running-config or startup-config")
	}
	p.r = source
	err := d.KnownHosts().Store(ctx, *c.to.remote, p)
	return p.n, err
}

// pour brings what is copied here.
func (c *copying) pour(ctx context.Context, source io.Reader, to io.Writer) error {
	if source == nil {
		return c.s.x.backend.(Storage).KnownHosts().Fetch(ctx, *c.from.remote, to)
	}
	_, err := io.Copy(to, source)
	return err
}

// text is a configuration with its secrets: what is stored must be usable.
func (c *copying) text() (string, error) {
	k := c.s.x.keeper
	if c.from.config == "running-config" {
		return k.Running().Startup(), nil
	}
	cfg, err := k.Startup()
	if err != nil {
		return "", err
	}
	return cfg.Startup(), nil
}

// configure takes the text of a file: its lines are typed, as an ASA does, or it becomes the saved configuration.
func (c *copying) configure(text string, w io.Writer) error {
	k := c.s.x.keeper
	if c.to.config == "running-config" {
		return c.s.change(strings.Split(strings.TrimRight(strings.ReplaceAll(text, "\r\n", "\n"), "\n"), "\n"), w)
	}
	name := c.from.file
	if c.from.remote != nil {
		name = c.from.remote.Path
	}
	cfg, found := config.Load(name, []byte(text))
	if err := found.Err(); err != nil {
		return err
	}
	return k.Store(c.s.who, cfg)
}

// capped is a writer with a limit.
type capped struct {
	w    *bytes.Buffer
	room int
}

func (c *capped) Write(b []byte) (int, error) {
	if c.room -= len(b); c.room < 0 {
		return 0, fmt.Errorf("a configuration has at most %d bytes: %w", revision.MaxFile, fs.ErrInvalid)
	}
	return c.w.Write(b)
}
