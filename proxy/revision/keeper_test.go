package revision

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"imeproxy/proxy/config"
)

func TestMain(m *testing.M) {
	if os.Getenv("REVISION_SAVES") != "" {
		saveForEver()
	}
	goleak.VerifyTestMain(m)
}

// box is a daemon that notes what is put into force.
type box struct {
	*Keeper
	applied []string
	refuse  error
	clock   time.Time
	timers  []func()
}

func load(t testing.TB, text string) *config.Config {
	t.Helper()
	c, found := config.Load("start", []byte(text))
	if found.HasErrors() {
		t.Fatal(found)
	}
	return c
}

func newBox(t testing.TB, text string) *box {
	t.Helper()
	dir := t.TempDir()
	b := &box{clock: time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)}
	file := filepath.Join(dir, "imeproxy.cfg")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	b.Keeper = New(Options{
		File: file, StateDir: filepath.Join(dir, "state"), Running: load(t, text), Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
		Now: func() time.Time { b.clock = b.clock.Add(time.Second); return b.clock },
		Apply: func(_ string, c *config.Config) error {
			if b.refuse == nil {
				b.applied = append(b.applied, c.Hostname)
			}
			return b.refuse
		},
		After: func(_ time.Duration, f func()) func() bool {
			b.timers = append(b.timers, f)
			return func() bool { return true }
		},
	})
	return b
}

func (b *box) onDisk(t testing.TB) string {
	t.Helper()
	text, err := os.ReadFile(b.opt.File)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestChangesActAtOnceOrNotAtAll(t *testing.T) {
	b := newBox(t, "hostname a\n")
	if missing, err := b.Append("me", []string{"hostname b"}); err != nil || len(missing) > 0 || fmt.Sprint(b.applied) != "[b]" {
		t.Fatalf("%v, %v, in force: %v", missing, err, b.applied)
	}
	if _, err := b.Append("me", []string{"hostname c", "frobnicate"}); err == nil || b.Running().Hostname != "b" {
		t.Errorf("a change with a mistake: %v, hostname %s", err, b.Running().Hostname)
	}
	b.refuse = errors.New("the kernel says no")
	if _, err := b.Append("me", []string{"hostname c"}); !errors.Is(err, b.refuse) || b.Running().Hostname != "b" {
		t.Errorf("a change that cannot be put into force: %v, hostname %s", err, b.Running().Hostname)
	}
	b.refuse = nil
	missing, err := b.Append("me", []string{"hostname c", "class-map m", "match access-list later"})
	if err != nil || len(missing) != 1 || len(b.applied) != 1 {
		t.Fatalf("%v, %v, in force: %v", missing, err, b.applied)
	}
	if err := b.Save("me"); !errors.Is(err, ErrIncomplete) || !strings.Contains(err.Error(), "later") || b.onDisk(t) != "hostname a\n" {
		t.Errorf("what is not in force was saved: %v", err)
	}
	if missing, err = b.Append("me", []string{"access-list later extended permit ip any any"}); err != nil || len(missing) > 0 || fmt.Sprint(b.applied) != "[b c]" {
		t.Errorf("complete at last: %v, %v, in force: %v", missing, err, b.applied)
	}
}

func TestSaveKeepsTheLastTen(t *testing.T) {
	b := newBox(t, "hostname h0\n")
	for i := 1; i <= Kept+3; i++ {
		if _, err := b.Append("me", []string{fmt.Sprintf("hostname h%d", i)}); err != nil {
			t.Fatal(err)
		}
		if err := b.Save(fmt.Sprintf("operator %d", i)); err != nil {
			t.Fatal(err)
		}
	}
	if b.onDisk(t) != fmt.Sprintf("hostname h%d\n", Kept+3) {
		t.Errorf("on disk: %s", b.onDisk(t))
	}
	h, err := b.History()
	if err != nil || len(h) != Kept || h[0].Number != 1 || h[0].Who != fmt.Sprintf("operator %d", Kept+3) || !h[0].Saved.After(h[1].Saved) {
		t.Fatalf("history: %+v, %v", h, err)
	}
	c, err := b.Former(Kept)
	if err != nil || c.Hostname != "h3" {
		t.Errorf("the oldest: %v, %v", c, err)
	}
	if _, err := b.Former(Kept + 1); err == nil {
		t.Error("an eleventh was kept")
	}
	if err := b.Replace("me", c); err != nil || b.Running().Hostname != "h3" {
		t.Errorf("going back: %v", err)
	}
	list, err := filepath.Glob(filepath.Join(b.opt.StateDir, "history", "*"))
	if err != nil || len(list) != Kept {
		t.Errorf("files: %v", list)
	}
	for _, f := range append(list, b.opt.File) {
		if info, err := os.Stat(f); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", f, info, err)
		}
	}
}

// Comments of a file that somebody wrote are counted, what programs draw as lines is not; when it has been saved, there are none.
func TestCommentsAreCounted(t *testing.T) {
	b := newBox(t, "! edge of enterprise A\nhostname a\n!\n: Saved\n !--- phones -----\n!--------\n:\nbanner motd ! no comment\n")
	if n := b.Comments(); n != 3 {
		t.Errorf("%d comments", n)
	}
	if err := b.Save("me"); err != nil || b.Comments() != 0 {
		t.Errorf("%v, %d comments afterwards", err, b.Comments())
	}
	files, _ := filepath.Glob(filepath.Join(b.opt.StateDir, "history", "*"))
	if len(files) != 1 {
		t.Fatalf("history: %v", files)
	}
	if kept, err := os.ReadFile(files[0]); err != nil || !strings.Contains(string(kept), "! edge of enterprise A\n") {
		t.Errorf("the former file is not kept: %v\n%s", err, kept)
	}
}

func TestCommitConfirmed(t *testing.T) {
	for name, x := range map[string]struct {
		end  func(b *box)
		want string
	}{
		"its time is over":     {func(b *box) { b.timers[0]() }, "a"},
		"its session ends":     {func(b *box) { b.Cancel("me") }, "a"},
		"another session ends": {func(b *box) { b.Cancel("you") }, "c"},
		"the file is read again": {func(b *box) {
			_ = b.Reloaded(func() (*config.Config, error) { c, _ := config.Load("", []byte("hostname c\n")); return c, nil })
			b.timers[0]()
		}, "c"},
		"it is confirmed": {func(b *box) { _ = b.Confirm("you"); b.Cancel("me"); b.timers[0]() }, "c"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t, "hostname a\n")
			before := b.Running()
			if _, err := b.Append("me", []string{"hostname b"}); err != nil {
				t.Fatal(err)
			}
			if err := b.Try("me", before, time.Minute); err != nil || b.Trial().IsZero() {
				t.Fatal(err)
			}
			if err := b.Try("you", before, time.Minute); !errors.Is(err, ErrTrial) {
				t.Errorf("a second trial: %v", err)
			}
			if _, err := b.Append("me", []string{"hostname c"}); err != nil {
				t.Fatal(err)
			}
			if err := b.Save("me"); !errors.Is(err, ErrTrialSave) {
				t.Errorf("what is on trial was saved: %v", err)
			}
			x.end(b)
			if err := b.Save("me"); (err == nil) != b.Trial().IsZero() {
				t.Errorf("saving afterwards: %v", err)
			}
			if got := b.Running().Hostname; got != x.want || b.applied[len(b.applied)-1] != x.want {
				t.Errorf("hostname %s, in force %v, want %s", got, b.applied, x.want)
			}
		})
	}
	if b := newBox(t, ""); !errors.Is(b.Confirm("me"), ErrNoTrial) {
		t.Error("nothing to confirm was confirmed")
	}
}

func TestRelativeFile(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	if err := os.WriteFile("box.cfg", []byte("hostname a\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	k := New(Options{File: "box.cfg", StateDir: filepath.Join(dir, "state"), Running: load(t, "hostname b\n"), Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if c, err := k.Startup(); err != nil || c.Hostname != "a" {
		t.Errorf("%v, %v", c, err)
	}
	if err := k.Save("me"); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(filepath.Join(dir, "box.cfg")); err != nil || string(text) != "hostname b\n" {
		t.Errorf("%q, %v", text, err)
	}
	stdin := New(Options{File: "-", Running: load(t, "hostname b\n")})
	if err := stdin.Save("me"); !errors.Is(err, ErrNoFile) {
		t.Errorf("saved to standard input: %v", err)
	}
}

func TestReadStaysInItsFolder(t *testing.T) {
	b := newBox(t, "hostname a\n")
	if err := os.MkdirAll(b.opt.StateDir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"good.cfg": "hostname z\n", "bad.cfg": "frobnicate\n", "big.cfg": strings.Repeat("!\n", MaxFile/2+1)} {
		if err := os.WriteFile(filepath.Join(b.opt.StateDir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if c, err := b.Read("good.cfg"); err != nil || c.Hostname != "z" {
		t.Errorf("%v, %v", c, err)
	}
	for _, name := range []string{"../imeproxy.cfg", "bad.cfg", "big.cfg", "none.cfg", ".", "/dev/zero"} {
		if _, err := b.Read(name); err == nil {
			t.Errorf("%s was read", name)
		}
	}
}

var errCut = errors.New("power cut")

// cut ends the program's life before one step of a write: nothing after it happens.
type cut struct {
	disk
	left int
}

func (c *cut) next() error {
	if c.left--; c.left < 0 {
		return errCut
	}
	return nil
}

func (c *cut) create(path string) (*os.File, error) {
	if err := c.next(); err != nil {
		return nil, err
	}
	return c.disk.create(path)
}

func (c *cut) write(f *os.File, b []byte) error {
	if err := c.next(); err != nil { // half of the text has come to the disk
		_, _ = f.Write(b[:len(b)/2])
		return err
	}
	return c.disk.write(f, b)
}

func (c *cut) sync(f *os.File) error { return errors.Join(c.next(), c.disk.sync(f)) }

func (c *cut) rename(from, to string) error {
	if err := c.next(); err != nil {
		return err
	}
	return c.disk.rename(from, to)
}

func (c *cut) syncDir(dir string) error { return errors.Join(c.next(), c.disk.syncDir(dir)) }

func TestPowerCutAtEachWrite(t *testing.T) {
	const old, next = "hostname old\n", "hostname new\n"
	for step := 0; ; step++ {
		b := newBox(t, old)
		if _, err := b.Append("me", []string{"hostname new"}); err != nil {
			t.Fatal(err)
		}
		b.fs = &cut{left: step}
		err := b.Save("me")
		if text := b.onDisk(t); text != old && text != next {
			t.Fatalf("cut at step %d leaves %q", step, text)
		}
		if err == nil {
			if step != 10 || b.onDisk(t) != next { // five steps for the former configuration, five for the new one
				t.Errorf("saved in %d steps, on disk %q", step, b.onDisk(t))
			}
			return
		}
		if !errors.Is(err, errCut) {
			t.Fatal(err)
		}
		b.fs = disk{} // the operator tries again
		if err := b.Save("me"); err != nil || b.onDisk(t) != next {
			t.Errorf("after a cut at step %d: %v, %q", step, err, b.onDisk(t))
		}
	}
}

const (
	shortText = "hostname short\n"
	longName  = "long-long-long-long-long-long-long"
)

// saveForEver is the other process of TestKilledWhileSaving.
func saveForEver() {
	dir := os.Getenv("REVISION_SAVES")
	c, _ := config.Load("", []byte(shortText))
	k := New(Options{
		File: filepath.Join(dir, "imeproxy.cfg"), StateDir: filepath.Join(dir, "state"), Running: c,
		Apply: func(string, *config.Config) error { return nil }, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	for i := 0; ; i++ {
		name := "short"
		if i%2 == 0 {
			name = longName
		}
		_, err := k.Append("me", []string{"hostname " + name})
		if err = errors.Join(err, k.Save("me")); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		if i == 0 {
			fmt.Println("saving")
		}
	}
}

func TestKilledWhileSaving(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "imeproxy.cfg")
	if err := os.WriteFile(file, []byte(shortText), 0o600); err != nil {
		t.Fatal(err)
	}
	for round := range 30 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "REVISION_SAVES="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		said := make([]byte, 7)
		if _, err := io.ReadFull(out, said); err != nil {
			t.Fatalf("it did not begin: %v", err)
		}
		time.Sleep(time.Duration(round) * 137 * time.Microsecond) // the moment of the kill, not a wait for something
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		text, err := os.ReadFile(file)
		if err != nil || (string(text) != shortText && string(text) != "hostname "+longName+"\n") {
			t.Fatalf("killed while saving: %q, %v", text, err)
		}
	}
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		t.Error("the file is gone")
	}
}
