package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// Ends by itself so often before it was ready, the service gets a configuration that cannot be the reason.
	rescueAfter = 3
	stopLimit   = 20 * time.Second
	// The service is asked for a sign of life so often; three times without one in a row, and it is started anew.
	lifeEvery  = 15 * time.Second
	lifeLimit  = 15 * time.Second
	lifeMisses = 3
	// The exit status of a shell that the service answers, but refuses: enough are open.
	exitRefused = 3
	rescueFile  = "/run/imeproxy/rescue.cfg"
	cgroupDir   = "/sys/fs/cgroup/imeproxy"
)

// service is `imeproxy run`.
type service struct {
	m        *machine
	mu       sync.Mutex
	pid      int       // 0: none runs; guarded by mu
	stopping bool      // guarded by mu
	since    time.Time // ready with the stored configuration since; guarded by mu
	ended    chan struct{}
}

func newService(m *machine) *service { return &service{m: m, ended: make(chan struct{})} }

// run starts the service and starts it anew when it ends, until stop.
func (s *service) run() {
	defer close(s.ended)
	early := 0
	for {
		file := configFile
		if early >= rescueAfter {
			s.m.say("the service does not start with %s: it runs without it. `configure replace %s check` tells what is wrong", file, file)
			file = rescueFile
			s.m.locked.Store(!s.m.rescue())
		} else {
			s.m.locked.Store(false)
		}
		wasReady, err := s.once(file)
		s.mu.Lock()
		stopping := s.stopping
		s.mu.Unlock()
		if stopping {
			return
		}
		early++
		if wasReady {
			early = 0
		}
		s.m.say("the service has ended (%v) and starts anew", err)
		time.Sleep(time.Second) // a service that fails at once must not take the whole machine
	}
}

// once runs the service until it ends.
func (s *service) once(file string) (wasReady bool, err error) {
	outR, outW, err := os.Pipe()
	if err != nil {
		return false, err
	}
	logR, logW, err := os.Pipe()
	if err != nil {
		return false, err
	}
	argv := []string{"service", imeproxy, "run", "--config", file, "--state-dir", stateDir, "--control", controlSocket, "--log-format", "json"}
	attr := &os.ProcAttr{
		Dir: "/", Env: append(s.m.zone(), "PATH=/bin", "HOME="+stateDir, "IMEPROXY_INIT="+requestSocket), Files: []*os.File{nil, outW, logW},
		Sys: &syscall.SysProcAttr{Setsid: true},
	}
	if dir, err := limits(); err != nil {
		s.m.say("the service runs without limits: %v", err)
	} else {
		defer dir.Close()
		attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, int(dir.Fd())
	}
	s.mu.Lock()
	if s.stopping {
		s.mu.Unlock()
		return false, nil
	}
	pid, done, err := s.m.children.start("/init", argv, attr)
	s.pid = pid
	s.mu.Unlock()
	_, _ = outW.Close(), logW.Close()
	if err != nil {
		return false, err
	}
	ready := make(chan struct{})
	go s.readOutput(outR, ready, file == configFile)
	go s.m.log.copy("imeproxy", logR)
	status := s.watch(pid, ready, done)
	s.mu.Lock()
	s.pid, s.since = 0, time.Time{}
	s.mu.Unlock()
	select {
	case <-ready:
		wasReady = true
	default:
	}
	if status.Signaled() {
		return wasReady, fmt.Errorf("signal %v", status.Signal())
	}
	return wasReady, fmt.Errorf("status %d", status.ExitStatus())
}

// readOutput waits for the service to say that it serves.
func (s *service) readOutput(r io.ReadCloser, ready chan<- struct{}, stored bool) {
	defer r.Close()
	said := false
	for sc := bufio.NewScanner(r); sc.Scan(); {
		if sc.Text() != "ready" {
			continue
		}
		seal()
		if stored {
			s.mu.Lock()
			s.since = time.Now()
			s.mu.Unlock()
		}
		var up unix.Timespec
		_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &up)
		s.m.say("ready, %.1f s after the kernel's start", float64(up.Nano())/1e9)
		if !said { // again after each `reload`
			said = true
			close(ready)
		}
	}
}

// watch waits for the service's end, and brings it about when the service gives no sign of life.
func (s *service) watch(pid int, ready <-chan struct{}, done <-chan syscall.WaitStatus) syscall.WaitStatus {
	select {
	case status := <-done:
		return status
	case <-ready:
	}
	tick := time.NewTicker(lifeEvery)
	defer tick.Stop()
	misses := 0
	for {
		select {
		case status := <-done:
			return status
		case <-tick.C:
		}
		if s.m.children.alive(imeproxy, controlSocket, lifeLimit) {
			misses = 0
			continue
		}
		if misses++; misses == lifeMisses {
			s.m.say("the service gives no sign of life and is ended")
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// alive reports whether the service carries a command out within the limit, or refuses to in so many words: that all its shells are in use is no
// reason to end calls.
func (c *children) alive(program, control string, limit time.Duration) bool {
	code, err := c.runFor(limit, io.Discard, program, "shell", "--control", control, "-c", "show clock")
	return err == nil && (code == 0 || code == exitRefused)
}

// readySince is since when the service is ready with the stored configuration; zero when it is not.
func (s *service) readySince() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.since
}

// again ends the service, which starts anew with what is stored now.
func (s *service) again() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pid != 0 {
		_ = syscall.Kill(s.pid, syscall.SIGTERM)
	}
}

// stop ends the service: calls get BYE, kernel state is taken back.
func (s *service) stop() {
	s.mu.Lock()
	s.stopping = true
	pid := s.pid
	s.mu.Unlock()
	if pid != 0 {
		_ = syscall.Kill(pid, syscall.SIGTERM)
	}
	limit := time.NewTimer(stopLimit)
	defer limit.Stop()
	select {
	case <-s.ended:
	case <-limit.C:
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

// limits makes the control group of the service: all but an eighth of the memory, and a number of threads.
func limits() (*os.File, error) {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return nil, err
	}
	var kib uint64
	if _, err := fmt.Sscanf(string(text), "MemTotal: %d kB", &kib); err != nil {
		return nil, fmt.Errorf("/proc/meminfo: %w", err)
	}
	if err := os.WriteFile("/sys/fs/cgroup/cgroup.subtree_control", []byte("+memory +pids"), 0); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cgroupDir, 0o755); err != nil {
		return nil, err
	}
	for file, value := range map[string]string{"memory.max": strconv.FormatUint(kib*1024/8*7, 10), "pids.max": "4096"} {
		if err := os.WriteFile(cgroupDir+"/"+file, []byte(value), 0); err != nil {
			return nil, err
		}
	}
	return os.Open(cgroupDir)
}

// becomeService drops what the service has no use for and becomes it. It returns an error alone.
func becomeService(path string, argv []string) error {
	runtime.LockOSThread() // what follows is this thread's, and this thread becomes the program
	files := unix.Rlimit{Cur: 262144, Max: 262144}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		return fmt.Errorf("limit of files: %w", err)
	}
	memory := unix.Rlimit{Cur: 64 << 20, Max: 64 << 20} // rings that media is sent through
	if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &memory); err != nil {
		return fmt.Errorf("limit of locked memory: %w", err)
	}
	place := unix.Rlimit{Cur: 20 - mediaNice, Max: 20 - mediaNice} // threads that relay media come forward that far
	if err := unix.Setrlimit(unix.RLIMIT_NICE, &place); err != nil {
		return fmt.Errorf("limit of nice: %w", err)
	}
	if err := unix.Setpriority(unix.PRIO_PROCESS, 0, serviceNice); err != nil {
		return fmt.Errorf("place before other programs: %w", err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("limit of core files: %w", err)
	}
	const keep = 1<<unix.CAP_NET_ADMIN | 1<<unix.CAP_NET_RAW
	for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
		if keep&(1<<c) == 0 {
			if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil && err != unix.EINVAL {
				return fmt.Errorf("drop capability %d: %w", c, err)
			}
		}
	}
	if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("keep capabilities: %w", err)
	}
	for _, call := range [][4]uintptr{{unix.SYS_SETGROUPS}, {unix.SYS_SETRESGID, daemonID, daemonID, daemonID}, {unix.SYS_SETRESUID, daemonID, daemonID, daemonID}} {
		if _, _, errno := unix.RawSyscall(call[0], call[1], call[2], call[3]); errno != 0 {
			return fmt.Errorf("change of user: %w", errno)
		}
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{{Effective: keep, Permitted: keep, Inheritable: keep}}
	if err := unix.Capset(&header, &data[0]); err != nil {
		return fmt.Errorf("set capabilities: %w", err)
	}
	for _, c := range []uintptr{unix.CAP_NET_ADMIN, unix.CAP_NET_RAW} {
		if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, c, 0, 0); err != nil {
			return fmt.Errorf("hand on capability %d: %w", c, err)
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no new privileges: %w", err)
	}
	unix.Umask(0o077)
	return fmt.Errorf("%s: %w", strings.Join(argv, " "), syscall.Exec(path, argv, os.Environ()))
}
