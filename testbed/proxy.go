package testbed

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"text/template"
	"time"
)

// Proxy is one imeproxy, driven by its command line alone.
type Proxy struct {
	// ConfigFile, StateDir and Control are what it is started with.
	ConfigFile, StateDir, Control string
	// KeyLog is the file of TLS keys for Capture.TLSMessages.
	KeyLog string
	// Args are given to its next start in addition.
	Args []string

	e    *Enterprise
	lab  *Lab
	proc *Process
}

// Binary is the program under test: $IMEPROXY, else bin/imeproxy of the
// repository.
func Binary() string {
	if b := os.Getenv("IMEPROXY"); b != "" {
		return b
	}
	return filepath.Join(Root(), "bin", "imeproxy")
}

// BuildBinary brings bin/imeproxy up to date, so that tests never judge an
// old one. With $IMEPROXY set it does nothing.
func BuildBinary() error {
	if os.Getenv("IMEPROXY") != "" {
		return nil
	}
	cmd := exec.Command("go", "build", "-o", Binary(), "./cmd/imeproxy")
	cmd.Dir = Root()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build bin/imeproxy: %w: %s", err, out)
	}
	return nil
}

// Root is the folder of the repository that this program was built from, or
// the working folder where that is gone.
func Root() string {
	if _, file, _, ok := runtime.Caller(0); ok {
		root := filepath.Dir(filepath.Dir(file))
		if _, err := os.Stat(filepath.Join(root, "go.mod")); err == nil {
			return root
		}
	}
	wd, err := os.Getwd()
	if err != nil {
		return "."
	}
	return wd
}

var proxyConfig = template.Must(template.New("proxy").Parse(`hostname proxy-{{.Letter}}
domain-name {{.Domain}}
interface ein
 nameif inside
 security-level 100
 ip address {{.InsideIP}} {{.InsideMask}}
interface eout
 nameif outside
 security-level 0
 ip address {{.OutsideIP}} {{.OutsideMask}}
route outside 0.0.0.0 0.0.0.0 {{.Gateway}}
object network ucm_real_1
 host {{.UCMIP}}
object network ucm_map_1
 host {{.Mapped}}
object network ucm_real_1
 nat (inside,outside) static ucm_map_1
access-list incoming extended permit tcp any host {{.UCMIP}} eq {{.Port}}
access-group incoming in interface outside
access-list ime-inbound-sip extended permit tcp any host {{.UCMIP}} eq {{.Port}}
access-list ime-outbound-sip extended permit tcp host {{.UCMIP}} any range 5000 6000
media-termination uc-ime-media-term
 address {{.MediaOut}} interface outside
 address {{.MediaIn}} interface inside
 rtp-min-port 16384 rtp-maxport 32767
crypto ca trustpoint local_ent
 enrollment terminal
 subject-name cn={{.Domain}}
 keypair local-ent-key
crypto ca trustpoint lab_ca
 enrollment terminal
tls-proxy local_to_remote-ent
 client trust-point local_ent
 client cipher-suite aes128-sha1 aes256-sha1
tls-proxy remote_to_local-ent
 server trust-point local_ent
ssl encryption 3des-sha1 aes128-sha1
uc-ime local-ent-ime
 media-termination uc-ime-media-term
 ucm address {{.UCMIP}} trunk-security-mode non-secure
 ticket epoch {{.TicketEpoch}} password {{.TicketPassword}}
class-map ime-inbound-sip
 match access-list ime-inbound-sip
class-map ime-outbound-sip
 match access-list ime-outbound-sip
policy-map ime-policy
 class ime-outbound-sip
  inspect sip uc-ime local-ent-ime tls-proxy local_to_remote-ent
 class ime-inbound-sip
  inspect sip uc-ime local-ent-ime tls-proxy remote_to_local-ent
service-policy ime-policy global
`))

// newProxy writes the configuration; Start imports the certificates.
func newProxy(l *Lab, e *Enterprise) *Proxy {
	dir := filepath.Join(l.Dir, "proxy-"+e.Letter)
	p := &Proxy{
		e: e, lab: l, ConfigFile: filepath.Join(dir, "running.cfg"), StateDir: filepath.Join(dir, "state"),
		Control: filepath.Join(l.socks, "proxy-"+e.Letter), KeyLog: filepath.Join(dir, "keys.log"),
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		l.T.Fatalf("%v", err)
	}
	text := p.DefaultConfig(l.T)
	if e.side.Config != nil {
		text = e.side.Config(text)
	}
	p.WriteConfig(l.T, text)
	return p
}

// DefaultConfig is the configuration text of the basic in-line deployment.
func (p *Proxy) DefaultConfig(t T) string { t.Helper(); return p.e.DefaultConfig(t) }

// DefaultConfig is what Proxy.DefaultConfig is, for an edge that may be of any kind; its cards are ein and eout.
func (e *Enterprise) DefaultConfig(t T) string {
	t.Helper()
	var b strings.Builder
	err := proxyConfig.Execute(&b, map[string]any{
		"Letter": e.Letter, "Domain": e.Domain, "InsideIP": e.InsideIP, "InsideMask": mask(e.Inside),
		"OutsideIP": e.OutsideIP, "OutsideMask": mask(e.Outside), "Gateway": e.Gateway, "UCMIP": e.UCMIP, "Mapped": e.Mapped,
		"Port": TrunkPort, "MediaIn": e.MediaIn, "MediaOut": e.MediaOut, "TicketEpoch": e.TicketEpoch, "TicketPassword": e.TicketPassword,
	})
	if err != nil {
		t.Fatalf("configuration of the proxy: %v", err)
	}
	return b.String()
}

// mask writes a prefix's length as the ASA does.
func mask(p netip.Prefix) string {
	m := ^uint32(0) << (32 - p.Bits())
	return netip.AddrFrom4([4]byte{byte(m >> 24), byte(m >> 16), byte(m >> 8), byte(m)}).String()
}

// WriteConfig replaces the configuration file; Start reads it.
func (p *Proxy) WriteConfig(t T, text string) {
	t.Helper()
	if err := os.WriteFile(p.ConfigFile, []byte(text), 0o600); err != nil {
		t.Fatalf("%v", err)
	}
}

// ImportCertificates brings the edge's identity and the lab's authority into
// the state directory, replacing what is there.
func (p *Proxy) ImportCertificates(t T) {
	t.Helper()
	MustImeproxy(t, "crypto", "import", "--state-dir", p.StateDir, "--trustpoint", "local_ent", "--pkcs12", p.e.P12File, "--passphrase", P12Pass)
	MustImeproxy(t, "crypto", "authenticate", "--state-dir", p.StateDir, "--trustpoint", "lab_ca", "--pem", p.lab.CA.File)
}

// Start imports certificates on the first start, runs the daemon and returns
// when it says that it is ready.
func (p *Proxy) Start(t T) {
	t.Helper()
	if _, err := os.Stat(p.StateDir); os.IsNotExist(err) {
		p.ImportCertificates(t)
	}
	out := filepath.Join(p.lab.Dir, "proxy-"+p.e.Letter+".out")
	before := readyLines(out)
	var args []string
	if p.e.side.Confined {
		args = p.confine(t)
	}
	if core := p.e.side.Core; core != "" {
		args = append(args, "taskset", "-c", core)
	}
	args = append(args, Binary(), "run", "--config", p.ConfigFile, "--state-dir", p.StateDir, "--control", p.Control, "--tls-keylog", p.KeyLog)
	args = append(args, p.Args...)
	proc, err := p.e.EdgeHost.Start("proxy-"+p.e.Letter, StartOptions{}, args...)
	if err != nil {
		t.Fatalf("%v", err)
	}
	p.proc = proc
	p.lab.track(proc)
	p.lab.onClose(func() { p.end(p.lab.T, proc) })
	Until(t, 30*time.Second, "proxy "+p.e.Letter+" is ready", func() bool {
		return readyLines(out) > before || !proc.Running()
	})
	if !proc.Running() {
		t.Fatalf("proxy %s ended at once: %v\n%s", p.e.Letter, proc.Wait(0), tail(proc.Log(), 4000))
	}
}

// readyLines counts how often the daemon has said that it is ready.
func readyLines(file string) (n int) {
	for line := range strings.Lines(readAll(file)) {
		if line == "ready\n" {
			n++
		}
	}
	return n
}

// Stop ends the daemon in order; it must end within 10 s with exit status 0.
func (p *Proxy) Stop(t T) {
	t.Helper()
	p.end(t, p.proc)
}

// end stops one daemon of possibly several that ran one after another.
func (p *Proxy) end(t T, proc *Process) {
	t.Helper()
	if !proc.Running() {
		return
	}
	if err := proc.Stop(syscall.SIGTERM, 10*time.Second); err != nil {
		t.Errorf("stop proxy %s: %v\n%s", p.e.Letter, err, tail(proc.Log(), 3000))
	}
}

// Kill ends the daemon without notice (kill -9).
func (p *Proxy) Kill() { p.proc.Kill() }

// Signal sends the daemon a signal.
func (p *Proxy) Signal(s syscall.Signal) { p.proc.Signal(s) }

// Running reports whether the daemon runs.
func (p *Proxy) Running() bool { return p.proc != nil && p.proc.Running() }

// Process is the daemon that was started last.
func (p *Proxy) Process() *Process { return p.proc }

// Log is what the daemon wrote, of all its starts.
func (p *Proxy) Log() string { return p.proc.Log() }

// loggedWithin bounds the time until a log line or a call record is in its file: while many come, the daemon writes those of 100 ms together.
const loggedWithin = 5 * time.Second

// Says waits until the daemon's log holds a text.
func (p *Proxy) Says(t T, text string) {
	t.Helper()
	Until(t, loggedWithin, fmt.Sprintf("the log holds %q", text), func() bool { return strings.Contains(p.Log(), text) })
}

// records returns the call records that are in the file.
func (p *Proxy) records() string { return readAll(filepath.Join(p.StateDir, "calls.json")) }

// record waits for the call record with a text, as a Call-ID, and returns the last one.
func (p *Proxy) record(t T, text string) (line string) {
	t.Helper()
	Until(t, loggedWithin, "there is a call record of "+text, func() bool {
		for l := range strings.Lines(p.records()) {
			if strings.Contains(l, text) {
				line = l
			}
		}
		return line != ""
	})
	return line
}

// Shell runs one command line in the daemon's shell and returns its output.
func (p *Proxy) Shell(command string) (string, error) {
	return Imeproxy("shell", "--control", p.Control, "-c", command)
}

// Show runs a show command with `| json` and decodes what it prints into v.
func (p *Proxy) Show(t T, command string, v any) {
	t.Helper()
	if err := p.TryShow(command, v); err != nil {
		t.Fatalf("proxy %s: %s: %v", p.e.Letter, command, err)
	}
}

// TryShow is Show that returns its error, for conditions.
func (p *Proxy) TryShow(command string, v any) error {
	out, err := p.Shell("show " + strings.TrimPrefix(command, "show ") + " | json")
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(out), v); err != nil {
		return fmt.Errorf("no JSON: %w: %s", err, tail(out, 500))
	}
	return nil
}

// FDs counts the daemon's open file descriptors.
func (p *Proxy) FDs() (int, error) {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.proc.Pid()))
	return len(entries), err
}

// Usage is what a process has taken so far.
type Usage struct {
	CPU time.Duration // user and system
	// Memory is the proportional set size in bytes: what processes share
	// counts once in their sum.
	Memory int64
}

// Usage reads the daemon's from /proc.
func (p *Process) Usage() (Usage, error) { return usageOf(p.Pid()) }

// usageOf reads /proc/PID/stat and /proc/PID/smaps_rollup (proc(5)).
func usageOf(pid int) (Usage, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return Usage{}, err
	}
	// The program's name stands in brackets and may hold spaces.
	_, rest, ok := strings.Cut(string(stat), ") ")
	f := strings.Fields(rest)
	if !ok || len(f) < 13 {
		return Usage{}, errors.New("unexpected form of /proc/PID/stat")
	}
	var u Usage
	for _, field := range f[11:13] { // utime and stime, counted from the state
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return Usage{}, err
		}
		u.CPU += time.Duration(n) * 10 * time.Millisecond // USER_HZ is 100 on Linux
	}
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return Usage{}, err
	}
	for _, line := range nonEmptyLines(string(maps)) {
		if v, ok := strings.CutPrefix(line, "Pss:"); ok {
			kb, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(v, "kB")), 10, 64)
			if err != nil {
				return Usage{}, err
			}
			u.Memory = kb << 10
		}
	}
	return u, nil
}

// Imeproxy runs the binary to its end, one minute at most, and returns its
// standard output; a failure carries standard error.
func Imeproxy(args ...string) (string, error) {
	ctx, cancel := background(time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, Binary(), args...).Output()
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		return string(out), fmt.Errorf("imeproxy %s: %w: %s%s", args[0], err, out, exit.Stderr)
	}
	return string(out), err
}

// MustImeproxy is Imeproxy that ends the test on failure.
func MustImeproxy(t T, args ...string) string {
	t.Helper()
	out, err := Imeproxy(args...)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return out
}

// TicketSpec says what a ticket grants; Password and Epoch are those of the
// enterprise that is called.
type TicketSpec struct {
	Password             string
	Epoch                int
	OwnDomain, GrantedTo string
	Numbers              []string
	// Now is the time of issue, Lifetime its length; zero is now and the
	// default.
	Now      time.Time
	Lifetime time.Duration
	// Dir is where the password may be written.
	Dir string
}

// IssueTicket makes a ticket with the binary's command.
func IssueTicket(t T, s TicketSpec) string {
	t.Helper()
	f, err := os.CreateTemp(s.Dir, "password-")
	if err != nil {
		t.Fatalf("%v", err)
	}
	defer os.Remove(f.Name())
	if _, err := f.WriteString(s.Password); err != nil {
		t.Fatalf("%v", err)
	}
	if err := f.Close(); err != nil {
		t.Fatalf("%v", err)
	}
	args := []string{"ticket", "issue", "--password-file", f.Name(), "--epoch", strconv.Itoa(s.Epoch), "--own-domain", s.OwnDomain, "--granted-to", s.GrantedTo}
	for _, n := range s.Numbers {
		args = append(args, "--number", n)
	}
	if !s.Now.IsZero() {
		args = append(args, "--now", s.Now.UTC().Format(time.RFC3339))
	}
	if s.Lifetime > 0 {
		args = append(args, "--lifetime", s.Lifetime.String())
	}
	return strings.TrimSpace(MustImeproxy(t, args...))
}
