package revision

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"imeproxy/proxy/config"
)

// Options are what a Keeper works with.
type Options struct {
	File     string                                   // of the startup configuration; "-": none, nothing can be saved
	StateDir string                                   // history/ stands in it
	Running  *config.Config                           // in force
	Apply    func(who string, c *config.Config) error // puts a checked configuration of somebody into force, or changes nothing
	Log      *slog.Logger
	Now      func() time.Time
	After    func(d time.Duration, f func()) (stop func() bool) // nil: time.AfterFunc
}

// Keeper is the configuration of a running daemon.
type Keeper struct {
	opt Options
	fs  files

	mu      sync.Mutex
	running *config.Config     // what has been typed
	missing config.Diagnostics // why running is not in force; empty: it is
	trial   *trial             // nil: no commit waits for its confirmation
}

// trial is a commit that waits for its confirmation.
type trial struct {
	before *config.Config
	who    string
	until  time.Time
	stop   func() bool
}

// Errors that an operator meets.
var (
	ErrIncomplete = errors.New("the running configuration is not complete, so it is not in force and cannot be saved")
	ErrNoFile     = errors.New("the daemon reads its configuration from standard input: there is no file to save it in")
	ErrTrial      = errors.New("another commit waits for its confirmation")
	ErrNoTrial    = errors.New("no commit waits for its confirmation")
	ErrTrialSave  = errors.New("a commit waits for its confirmation: enter commit before the configuration is saved, or it would come back after being taken back")
)

// New makes the keeper of a configuration that is in force.
func New(opt Options) *Keeper {
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.After == nil {
		opt.After = func(d time.Duration, f func()) func() bool { return time.AfterFunc(d, f).Stop }
	}
	if opt.File != "-" { // a relative name would be one of the state directory to Read
		if path, err := filepath.Abs(opt.File); err == nil {
			opt.File = path
		}
	}
	return &Keeper{opt: opt, fs: disk{}, running: opt.Running}
}

// Running is what has been typed, in force or not. Nobody changes it.
func (k *Keeper) Running() *config.Config {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.running
}

// Missing says what the running configuration lacks to be put into force; empty when it is in force.
func (k *Keeper) Missing() config.Diagnostics {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.missing
}

// Append puts lines behind the running configuration. An error, which may be config.Diagnostics, means that nothing was changed; missing says
// what keeps the whole from being in force.
func (k *Keeper) Append(who string, lines []string) (missing config.Diagnostics, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	next, mistakes, missing := k.running.Append(lines)
	if len(mistakes) > 0 {
		return nil, mistakes
	}
	return missing, k.set(who, next, missing)
}

// Replace makes a whole configuration the running one. It must be complete.
func (k *Keeper) Replace(who string, next *config.Config) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if missing := next.Check().Errors(); len(missing) > 0 {
		return missing
	}
	return k.set(who, next, nil)
}

// Remove takes a section away, or "all" of them; found is false when there is none of that name.
func (k *Keeper) Remove(who, section string) (missing config.Diagnostics, found bool, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	next, found := k.running.Without(section)
	if !found {
		return nil, false, nil
	}
	missing = next.Check().Errors()
	return missing, true, k.set(who, next, missing)
}

// set makes a configuration the running one and, when nothing is missing, puts it into force.
func (k *Keeper) set(who string, next *config.Config, missing config.Diagnostics) error {
	if next.Startup() == k.running.Startup() && (len(missing) > 0) == (len(k.missing) > 0) {
		return nil
	}
	if len(missing) == 0 {
		if err := k.opt.Apply(who, next); err != nil {
			return fmt.Errorf("the configuration cannot be put into force, nothing was changed: %w", err)
		}
	}
	k.running, k.missing = next, missing
	k.opt.Log.Info("configuration changed", "who", who, "in_force", len(missing) == 0)
	return nil
}

// Try begins a commit that is taken back after d, or when the session that began it calls Cancel. before is the configuration to go back to.
func (k *Keeper) Try(who string, before *config.Config, d time.Duration) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.trial != nil {
		return fmt.Errorf("%w, that of %s until %s", ErrTrial, k.trial.who, k.trial.until.Format(time.TimeOnly))
	}
	t := &trial{before: before, who: who, until: k.opt.Now().Add(d)}
	t.stop = k.opt.After(d, func() { k.rollBack(t, "its time is over") })
	k.trial = t
	k.opt.Log.Warn("configuration on trial: it is taken back unless it is confirmed", "who", who, "within", d)
	return nil
}

// Trial tells when the commit that waits is taken back; zero when none waits.
func (k *Keeper) Trial() time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.trial == nil {
		return time.Time{}
	}
	return k.trial.until
}

// Confirm ends the waiting: the running configuration stays.
func (k *Keeper) Confirm(who string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.trial == nil {
		return ErrNoTrial
	}
	k.trial.stop()
	k.trial = nil
	k.opt.Log.Info("configuration confirmed", "who", who)
	return nil
}

// Cancel takes back the commit that who has begun, if one waits.
func (k *Keeper) Cancel(who string) {
	k.mu.Lock()
	t := k.trial
	k.mu.Unlock()
	if t != nil && t.who == who {
		t.stop()
		k.rollBack(t, "its session has ended")
	}
}

func (k *Keeper) rollBack(t *trial, why string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.trial != t {
		return
	}
	k.trial = nil
	missing := t.before.Check().Errors()
	if err := k.set(t.who, t.before, missing); err != nil {
		k.opt.Log.Error("configuration on trial cannot be taken back", "who", t.who, "err", err)
		return
	}
	k.opt.Log.Warn("configuration taken back: "+why, "who", t.who)
}

// Startup is the text of the startup configuration as it stands on disk.
func (k *Keeper) Startup() (*config.Config, error) {
	if k.opt.File == "-" {
		return nil, ErrNoFile
	}
	return k.Read(k.opt.File)
}

// Read reads a configuration file: an absolute path, or a name in the state directory (disk0:). It must be without mistakes.
func (k *Keeper) Read(name string) (*config.Config, error) {
	path := name
	if !filepath.IsAbs(name) {
		if !filepath.IsLocal(name) {
			return nil, fmt.Errorf("%s: a name inside the state directory, or an absolute path, is expected", name)
		}
		path = filepath.Join(k.opt.StateDir, name)
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > MaxFile {
		return nil, fmt.Errorf("%s: a text file of at most %d bytes is expected", name, MaxFile)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	c, found := config.Load(name, text)
	return c, found.Err()
}

// Comments counts the lines of the startup configuration that are comments with words in them: Save does not keep them, the history does. 0 where the file
// cannot be read.
func (k *Keeper) Comments() int {
	n := 0
	text, _ := os.ReadFile(k.opt.File) // "-" is no file
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line != "" && (line[0] == '!' || line[0] == ':') && strings.Trim(line, "!:-=*# \t") != "" {
			n++
		}
	}
	return n
}

// Save writes the running configuration into the file of the startup configuration; what stood there is kept.
func (k *Keeper) Save(who string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.opt.File == "-":
		return ErrNoFile
	case k.trial != nil:
		return ErrTrialSave
	case len(k.missing) > 0:
		return fmt.Errorf("%w: %s", ErrIncomplete, k.missing[0].Message)
	}
	return k.store(who, k.running, "configuration saved")
}

// store writes a configuration into the file of the startup configuration and tells the log. The caller holds mu.
func (k *Keeper) store(who string, c *config.Config, told string) error {
	if err := k.keep(who); err != nil {
		return err
	}
	if err := write(k.fs, k.opt.File, []byte(c.Startup())); err != nil {
		return fmt.Errorf("startup configuration not saved, the old one stands: %w", err)
	}
	k.opt.Log.Info(told, "who", who, "file", k.opt.File)
	return nil
}

// Store makes a configuration the saved one, without putting it into force; what stood there is kept.
func (k *Keeper) Store(who string, c *config.Config) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.opt.File == "-":
		return ErrNoFile
	case k.trial != nil:
		return ErrTrialSave
	}
	return k.store(who, c, "startup configuration replaced")
}

// Reloaded takes note of a configuration that was put into force from the file by other means (SIGHUP). A trial ends with it: what it would go
// back to is older than what the operator has just asked for.
func (k *Keeper) Reloaded(apply func() (*config.Config, error)) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	c, err := apply()
	if err == nil {
		k.running, k.missing = c, nil
		if k.trial != nil {
			k.trial.stop()
			k.trial = nil
		}
	}
	return err
}
