package main

import (
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Where things are in the appliance.
const (
	imeproxy      = "/bin/imeproxy"
	defaultConfig = "/usr/share/imeproxy/imeproxy.cfg"
	controlSocket = "/run/imeproxy/control.sock"
	stateMount    = "/state"
	configFile    = stateMount + "/config/imeproxy.cfg"
	stateDir      = stateMount + "/imeproxy"
	logDir        = stateMount + "/log"
	// daemonID is the user and group of the service.
	daemonID = 100
	// serviceNice is its place before other programs (nice(2)), mediaNice the one that its threads which relay media may take; as in the unit.
	serviceNice = -5
	mediaNice   = -15
)

func main() {
	if len(os.Args) > 1 && os.Args[0] == "service" {
		err := becomeService(os.Args[1], os.Args[1:])
		fmt.Fprintln(os.Stderr, "service:", err)
		os.Exit(126)
	}
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "this is the first process of the appliance: it does nothing elsewhere")
		os.Exit(2)
	}
	m := &machine{children: newChildren(), requests: make(chan string, 4), release: release()}
	m.say("%s", m.release)
	if err := m.bring(); err != nil {
		// Nobody can be asked before the system stands; a restart may help, and finds the other system.
		m.say("the system does not start: %v", err)
		m.halt(unix.LINUX_REBOOT_CMD_RESTART)
	}
	m.halt(m.serve())
}

// machine is the running system.
type machine struct {
	children *children
	requests chan string  // "restart" or "shutdown"
	asker    atomic.Value // string: the user who has asked for it
	release  string
	log      *logFile
	service  *service
	fresh    atomic.Bool // never installed: the consoles ask
	locked   atomic.Bool // nobody can log in: the consoles offer recovery alone
	upgrades upgrades

	recovering    atomic.Bool // a console resets passwords: the others offer nothing
	consolesSince time.Time
	settings      atomic.Pointer[settings] // nil: never installed
}

// release is the name of what runs.
func release() string {
	text, _ := os.ReadFile("/etc/os-release")
	for _, line := range strings.Split(string(text), "\n") {
		if v, ok := strings.CutPrefix(line, "PRETTY_NAME="); ok {
			return strings.Trim(v, `"`)
		}
	}
	return "imeproxy"
}

// say tells the consoles, and the log once it exists.
func (m *machine) say(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if f, err := os.OpenFile("/dev/console", os.O_WRONLY|syscall.O_NOCTTY, 0); err == nil {
		_, _ = f.WriteString("imeproxy: " + strings.ReplaceAll(text, "\n", "\r\n") + "\r\n")
		_ = f.Close()
	}
	if m.log != nil {
		m.log.line("system", text)
	}
}

// bring makes the system ready for its service.
func (m *machine) bring() error {
	if err := mountKernel(); err != nil {
		return err
	}
	// Ctrl-Alt-Del is a signal to us, not a reset.
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_CAD_OFF)
	mods, err := readModules("/lib/modules/modules.json")
	if err != nil {
		return err
	}
	if err := mods.loadAlways(); err != nil {
		return err
	}
	errs := mods.loadForDevices()
	m.startWatchdogs()
	if err := m.mountState(mods, errs); err != nil {
		return err
	}
	m.log = openLog(logDir + "/system.log")
	m.history("Boot", "Start")
	if err := m.firstBoot(); err != nil {
		return err
	}
	m.applySettings()
	return setLink("lo", true)
}

// serve runs the service until somebody asks for the machine's end, and says which end.
func (m *machine) serve() int {
	go powerButton(m.requests)
	go m.signals()
	go m.keepTime()
	control, err := m.listen()
	if err != nil {
		m.say("requests of the service will not be heard: %v", err)
	} else {
		defer control.Close()
	}
	m.service = newService(m)
	go m.service.run()
	go m.judge()
	m.consolesSince = time.Now()
	for _, tty := range consoles() {
		go m.console(tty)
	}
	request := <-m.requests
	m.service.stop()
	who, _ := m.asker.Load().(string)
	if request == "shutdown" {
		m.historyOf(who, "Shutdown", "Start")
		m.say("the machine is switched off")
		return unix.LINUX_REBOOT_CMD_POWER_OFF
	}
	m.historyOf(who, "System Restart", "Start")
	m.say("the machine restarts")
	return unix.LINUX_REBOOT_CMD_RESTART
}

// halt ends everything in order. It does not return.
func (m *machine) halt(how int) {
	if m.log != nil {
		m.log.close()
	}
	_ = unix.Kill(-1, unix.SIGTERM)
	m.children.waitAll(2 * time.Second)
	_ = unix.Kill(-1, unix.SIGKILL)
	m.children.waitAll(2 * time.Second)
	unix.Sync()
	if err := unix.Unmount(stateMount, 0); err != nil {
		_ = unix.Mount("", stateMount, "", unix.MS_REMOUNT|unix.MS_RDONLY, "")
	}
	unix.Sync()
	_ = unix.Reboot(how)
	select {} // the kernel panics when its first process ends
}
