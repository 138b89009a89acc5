package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"imeproxy/proxy"
	"imeproxy/proxy/config"
	"imeproxy/proxy/machine"
	"imeproxy/proxy/observe"
	"imeproxy/proxy/revision"
	"imeproxy/proxy/shell"
	"imeproxy/proxy/sshd"
	"imeproxy/proxy/trust"
)

// runFlags are the settings of `imeproxy run`.
type runFlags struct {
	config, stateDir, control string
	drain                     time.Duration
	logLevel, logFormat       string
	keyLog, metrics           string
}

func newRunCommand() *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:   "run --config FILE",
		Short: "Run the appliance in the foreground",
		Long: "Runs the appliance until SIGTERM or SIGINT. Logs go to standard error; `ready` alone on a line of standard output tells\n" +
			"that it serves. SIGTERM: new calls are refused, standing ones may end by themselves for the --drain time, the rest get BYE,\n" +
			"and what was added to the kernel is removed. A second signal ends the waiting. SIGHUP reads the configuration again; a\n" +
			"file with mistakes changes nothing.",
		Args:    cobra.NoArgs,
		PreRunE: func(*cobra.Command, []string) error { return f.check() },
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runAppliance(cmd.Context(), f, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.config, "config", "", "configuration `FILE`")
	fl.StringVar(&f.stateDir, "state-dir", trust.DefaultStateDir, "`DIR` of keys, certificates and call records")
	fl.StringVar(&f.control, "control", shell.DefaultSocket, "Unix `SOCKET` for imeproxy shell")
	fl.DurationVar(&f.drain, "drain", 0, "how long standing calls may end by themselves after SIGTERM")
	fl.StringVar(&f.logLevel, "log-level", "info", "debug, info, warn or error")
	fl.StringVar(&f.logFormat, "log-format", "text", "text or json")
	fl.StringVar(&f.metrics, "metrics", "", "let Prometheus collect at `ADDRESS:PORT`, a loopback address")
	fl.StringVar(&f.keyLog, "tls-keylog", "", "write TLS session keys to `FILE`: anyone who has it can read all calls (lab only)")
	_ = fl.MarkHidden("tls-keylog")
	_ = cmd.MarkFlagRequired("config")
	return cmd
}

// check refuses settings that no appliance could run with, before anything is touched.
func (f *runFlags) check() error {
	_, level := observe.ParseLevel(f.logLevel)
	_, format := observe.NewLogger(io.Discard, observe.LogConfig{Format: f.logFormat})
	if f.drain < 0 {
		return fmt.Errorf("--drain %s: a time to wait cannot be negative", f.drain)
	}
	return errors.Join(level, format, proxy.CheckMetricsAddress(f.metrics))
}

// loadConfig reads and checks a configuration file; "-" is the given reader. Of a text that is too long it reads as much as shows that: what is
// cut off would not be checked, and a device or a pipe may have no end.
func loadConfig(file string, stdin io.Reader) (*config.Config, config.Diagnostics, error) {
	name, from := file, stdin
	if file == "-" {
		name = "standard-input"
	} else {
		f, err := os.Open(file)
		if err != nil {
			return nil, nil, err
		}
		defer f.Close()
		from = f
	}
	text, err := io.ReadAll(io.LimitReader(from, revision.MaxFile+1))
	if err != nil {
		return nil, nil, err
	}
	cfg, diags := config.Load(name, text)
	return cfg, diags, nil
}

// errConfig tells that the mistakes of the file have been printed.
var errConfig = errors.New("the configuration has mistakes; nothing was changed")

// goodConfig loads the file, tells its mistakes and logs its warnings.
func goodConfig(file string, mistake func(config.Diagnostic), log *slog.Logger) (*config.Config, error) {
	cfg, diags, err := loadConfig(file, os.Stdin)
	if err != nil {
		return nil, err
	}
	for _, d := range diags {
		if d.Severity == config.Error {
			mistake(d)
		} else {
			log.Warn("configuration", "file", d.File, "line", d.Line, "warning", d.Message)
		}
	}
	if diags.HasErrors() {
		return nil, errConfig
	}
	return cfg, nil
}

// warnReadable tells that a configuration, which holds secrets, is not its owner's alone.
func warnReadable(file string, log *slog.Logger) {
	if i, err := os.Stat(file); err == nil && i.Mode().IsRegular() && i.Mode()&0o077 != 0 {
		log.Warn("other users of this machine may open the configuration and the secrets in it: chmod 600", "file", file, "mode", fmt.Sprintf("%04o", i.Mode().Perm()))
	}
}

// explainPort adds to the error of a start what to do about a port that another program has.
func explainPort(err error) error {
	if !errors.Is(err, syscall.EADDRINUSE) {
		return err
	}
	return fmt.Errorf("%w: another program has this port, `ss -lntup` tells which", err)
}

// alone makes sure that no other daemon runs with this control socket or this state directory, before anything is read or told: what would be told of the
// files that the other one holds hides the one thing that is wrong. made is the directory of the control socket, if it was missing.
func alone(f runFlags) (made string, err error) {
	if made, err = shell.CheckSocket(f.control); err == nil {
		err = proxy.CheckRunning(f.stateDir)
	}
	return made, err
}

func runAppliance(ctx context.Context, f runFlags, stdout, stderr io.Writer) error {
	level, err := observe.ParseLevel(f.logLevel)
	if err != nil {
		return err
	}
	made, err := alone(f)
	if err != nil {
		return err
	}
	recent := new(observe.LogRing)
	log, gathered, err := observe.OpenLog(stderr, recent, f.stateDir, observe.LogConfig{Format: f.logFormat, Level: level})
	if err != nil {
		return err
	}
	defer gathered.Close()
	syslog := observe.NewSyslog(time.Now)
	log = slog.New(syslog.Handler(log.Handler()))
	sending, stop := context.WithCancel(ctx)
	defer stop()
	go syslog.Run(sending)
	if made != "" {
		log.Info("directory of the control socket made: nobody but root and this user may enter it", "directory", made, "mode", "0700")
	}
	cfg, err := goodConfig(f.config, func(d config.Diagnostic) { fmt.Fprintln(stderr, d.Error()) }, log) // as `imeproxy check` does
	if err != nil {
		return proxy.ExplainFile(f.config, err)
	}
	warnReadable(f.config, log)
	opt := proxy.Options{Config: cfg, File: f.config, StateDir: f.stateDir, Log: log, Version: version, Commit: commit, Recent: recent, Syslog: syslog, Metrics: f.metrics}
	if f.keyLog != "" {
		file, err := os.OpenFile(f.keyLog, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		defer file.Close()
		log.Warn("TLS session keys are written to a file: whoever reads it can read all calls", "file", f.keyLog)
		opt.KeyLog = file
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer signal.Stop(signals)
	a, err := proxy.Start(ctx, opt)
	if err != nil {
		return explainPort(err)
	}
	if err := operate(ctx, f, a, cfg, signals, stdout, log); !errors.Is(err, errAgain) {
		return err
	}
	select {
	case sig := <-signals:
		if sig != syscall.SIGHUP {
			return nil
		}
	default:
	}
	gathered.Close()
	return begin()
}

// operate gives the operators their shell, over the control socket and over SSH, and serves.
func operate(ctx context.Context, f runFlags, a *proxy.Appliance, cfg *config.Config, signals <-chan os.Signal, stdout io.Writer, log *slog.Logger) error {
	var access *sshd.Server
	apply := func(who string, c *config.Config) error {
		return access.Apply(who, c, func() error { return a.Reload(c) })
	}
	keeper := revision.New(revision.Options{File: f.config, StateDir: f.stateDir, Running: cfg, Apply: apply, Log: log})
	again := make(chan string, 1)
	var backend shell.Backend = restartable{a, again}
	if m := machine.FromEnvironment(); m != nil {
		backend = onMachine{restartable{a, again}, m}
	}
	exec := shell.NewExecutor(backend, keeper)
	// Whoever may connect could fill a disk with failed logins.
	access, err := sshd.New(exec, f.stateDir, slog.New(observe.LimitLog(log.Handler(), 20, time.Now)), a.LoginFailed)
	if err == nil {
		err = access.Apply("", cfg, func() error { return nil })
	}
	if err != nil {
		return errors.Join(err, a.Stop(ctx, 0))
	}
	return serve(ctx, f, a, desk{keeper, exec, apply, access.Close, again}, signals, stdout, log)
}

// desk is what operators work with.
type desk struct {
	keeper *revision.Keeper
	exec   shell.Executor
	apply  func(who string, c *config.Config) error
	close  func()        // ends the sessions over SSH
	again  <-chan string // who asks for a new start
}

// restartable is an appliance whose daemon begins anew when an operator asks for it.
type restartable struct {
	*proxy.Appliance
	again chan<- string
}

// Restart begins anew; it returns at once.
func (r restartable) Restart(who string) {
	select {
	case r.again <- who:
	default: // somebody has asked already
	}
}

// onMachine is an appliance that has its machine for itself.
type onMachine struct {
	restartable
	first *machine.Client
}

// Machine asks the first process.
func (m onMachine) Machine() *machine.Client { return m.first }

// errAgain says that the daemon has stopped to begin anew.
var errAgain = errors.New("the daemon begins anew")

// begin starts this program again in its own place: the process and what it was given stay.
func begin() error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	return syscall.Exec(strings.TrimSuffix(exe, " (deleted)"), os.Args, os.Environ()) // the file may have been replaced by a newer one
}

// serve opens the control socket and waits for signals.
func serve(ctx context.Context, f runFlags, a *proxy.Appliance, d desk, signals <-chan os.Signal, stdout io.Writer, log *slog.Logger) error {
	control, stopControl := context.WithCancel(ctx)
	defer stopControl()
	served := make(chan error, 1)
	listening := make(chan struct{})
	go func() {
		srv := &shell.Server{Path: f.control, Executor: d.exec, Log: log, Ready: listening}
		served <- srv.Serve(control)
	}()
	var failed, again error
	watched := make(chan struct{})
	sup := supervisor{log}
	go func() {
		defer close(watched)
		select {
		case <-listening:
			sup.signOfLife(control, f.control)
		case <-control.Done():
		}
	}()
	select {
	case <-listening:
		sup.ready()
		fmt.Fprintln(stdout, "ready")
		log.Info("serving", "version", version, "config", f.config, "control", f.control)
	case failed = <-served:
		failed = fmt.Errorf("control socket: %w", failed)
		served <- nil
	}
	for failed == nil {
		select {
		case sig := <-signals:
			if sig == syscall.SIGHUP {
				sup.reloading()
				reload(d, f, log)
				sup.ready()
				continue
			}
		case who := <-d.again:
			log.Warn("the daemon begins anew, with the saved configuration", "who", who)
			again = errAgain
			sup.reloading()
		case err := <-served:
			failed = fmt.Errorf("control socket: %w", err)
			served <- nil
		case <-ctx.Done():
		}
		break
	}
	stopping, hurry := context.WithCancel(context.WithoutCancel(ctx))
	defer hurry()
	var terminated atomic.Bool // a signal ends also a daemon that was to begin anew
	go func() {
		for {
			select {
			case sig := <-signals:
				if sig != syscall.SIGHUP {
					log.Info("another signal: the waiting ends", "signal", sig.String())
					terminated.Store(true)
					hurry()
					return
				}
				log.Warn("the configuration is not read again: the daemon is stopping")
			case <-stopping.Done():
				return
			}
		}
	}()
	if again == nil {
		sup.stopping(f.drain)
	}
	err := a.Stop(stopping, f.drain)
	d.close() // until then operators may look at what is left
	stopControl()
	<-watched
	if err := errors.Join(failed, err, <-served); err != nil {
		return err
	}
	if terminated.Load() {
		return nil
	}
	return again
}

// reload reads the file again; on any mistake the running configuration stays. Mistakes are records of the log, so that they come wherever it
// goes: who asked for this may see no standard error.
func reload(d desk, f runFlags, log *slog.Logger) {
	before := d.keeper.Running()
	err := d.keeper.Reloaded(func() (*config.Config, error) {
		cfg, err := goodConfig(f.config, func(d config.Diagnostic) { logMistake(log, d) }, log)
		if err == nil {
			err = d.apply("SIGHUP", cfg)
		}
		return cfg, err
	})
	if err != nil {
		log.Error("reload failed, the running configuration stays", "file", f.config, "err", err)
		return
	}
	logChanges(log, config.Changes(before, d.keeper.Running()))
	log.Info("configuration reloaded", "file", f.config)
}

// maxChanges bounds the lines about one reload.
const maxChanges = 100

// logChanges tells what a reload has changed, as nobody was asked line by line: what had been typed and not saved goes with it too.
func logChanges(log *slog.Logger, changes []config.Change) {
	if len(changes) == 0 {
		log.Info("no line of the configuration has changed")
	}
	for i, c := range changes {
		if i == maxChanges {
			log.Info("changed in the configuration", "more", len(changes)-i)
			return
		}
		args := []any{"change", c.Text}
		if c.Mode != "" {
			args = append(args, "in", c.Mode)
		}
		log.Info("changed in the configuration", args...)
	}
}

func logMistake(log *slog.Logger, d config.Diagnostic) {
	hint := strings.ReplaceAll(d.Hint, "\n", "; ")
	log.Error("mistake in the configuration", "err", fmt.Sprintf("%s:%d:%d: error: %s", d.File, d.Line, d.Col, d.Message), "text", strings.TrimSpace(d.Source), "hint", hint)
}
