package mapping

import (
	"bufio"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func (l *lab) same(what, before string) {
	l.t.Helper()
	if diff := cmp.Diff(strings.Split(before, "\n"), strings.Split(normal(l.snapshot()), "\n")); diff != "" {
		l.t.Errorf("%s (-before +after):\n%s", what, diff)
	}
}

func TestRemoveLeavesNothing(t *testing.T) {
	l := newLab(t)
	before := l.snapshot()
	k := l.apply(labSpec())
	if during := l.snapshot(); !strings.Contains(during, TableIntercept) || !strings.Contains(during, "ip_forward:1") {
		t.Fatalf("nothing was set:\n%s", during)
	}
	if mode := fileMode(t, filepath.Join(l.state, stateFile)); mode != 0o600 {
		t.Errorf("record has mode %o", mode)
	}
	l.in(l.box, k.Remove)
	l.same("Remove", before)
	if _, err := os.Stat(filepath.Join(l.state, stateFile)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("record after Remove: %v", err)
	}
	l.in(l.box, k.Remove)
	if err := try(l.box, func() error { return k.Update(labSpec()) }); !errors.Is(err, ErrRemoved) {
		t.Errorf("Update after Remove: %v", err)
	}
}

func fileMode(t *testing.T, name string) fs.FileMode {
	t.Helper()
	st, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	return st.Mode().Perm()
}

// What an operator had set before is neither changed nor removed, be it the same as ours or not.
func TestWhatWasThereStays(t *testing.T) {
	l := newLab(t)
	for _, c := range []string{
		"ip link set mapout up", "ip link set mapin up",
		"ip addr add 209.165.200.225/27 dev mapout", "ip addr add 209.165.200.228/27 dev mapout",
		"ip route add default via 209.165.200.230", "ip route add 203.0.113.0/24 via 209.165.200.230",
		"ip rule add fwmark 0x1e lookup 30", "ip rule add fwmark 0x2 lookup 31",
		"nft add table inet other; nft add chain inet other c; nft add rule inet other c drop",
		"echo 1 > /proc/sys/net/ipv4/ip_forward",
	} {
		l.run(l.box, "sh", "-c", c)
	}
	before := l.snapshot()
	k := l.apply(labSpec())
	if during := l.snapshot(); strings.Count(during, "inet 209.165.200.228") != 1 || strings.Count(during, "fwmark 0x1e") != 1 {
		t.Errorf("set twice:\n%s", during)
	}
	l.in(l.box, k.Remove)
	l.same("Remove", before)
}

// A spec that fails late leaves nothing at Apply and the old one at Update.
func TestFailureChangesNothing(t *testing.T) {
	lateFailure := labSpec()
	lateFailure.Addresses = append(lateFailure.Addresses, Address{linkOut, addr("209.165.200.233")})
	lateFailure.Routes = []Route{
		{Link: linkOut, Dst: netip.MustParsePrefix("0.0.0.0/0"), Gateway: addr("209.165.200.234")},
		{Link: linkOut, Dst: netip.MustParsePrefix("198.51.100.0/24"), Gateway: addr("8.8.8.8")}, // a gateway on no network of ours
	}
	noLink := labSpec()
	noLink.Interfaces[2].Link = "mapnone"
	nonsense := labSpec()
	nonsense.Statics = append(nonsense.Statics, nonsense.Statics[0])
	foreign := labSpec()
	foreign.Routes = append(foreign.Routes, Route{Link: linkOut, Dst: netip.MustParsePrefix("203.0.113.0/24"), Gateway: addr("209.165.200.231")})

	l := newLab(t)
	bad := map[string]Spec{"late failure": lateFailure, "no such link": noLink, "nonsense": nonsense, "another's route": foreign}
	// The other's route hangs on an address of ours, so it goes when that goes; give the box the address first.
	l.run(l.box, "sh", "-c", "ip addr add 209.165.200.225/27 dev mapout; ip link set mapout up; ip route add 203.0.113.0/24 via 209.165.200.230")
	before := l.snapshot()
	for name, spec := range bad {
		if err := try(l.box, func() error { _, err := Apply(spec, l.state, nil); return err }); err == nil {
			t.Errorf("Apply with %s succeeds", name)
		}
		l.same("Apply with "+name, before)
		if _, err := os.Stat(filepath.Join(l.state, stateFile)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Apply with %s leaves a record: %v", name, err)
		}
	}
	k := l.apply(labSpec())
	during := normal(l.snapshot())
	record, err := os.ReadFile(filepath.Join(l.state, stateFile))
	if err != nil {
		t.Fatal(err)
	}
	for name, spec := range bad {
		if err := try(l.box, func() error { return k.Update(spec) }); err == nil {
			t.Errorf("Update with %s succeeds", name)
		}
		l.same("Update with "+name, during)
		if after, _ := os.ReadFile(filepath.Join(l.state, stateFile)); string(after) != string(record) {
			t.Errorf("Update with %s changes the record to %s", name, after)
		}
	}
	l.in(l.box, k.Remove)
	l.same("Remove", before)
}

func TestUpdate(t *testing.T) {
	l := newLab(t)
	before := l.snapshot()
	k := l.apply(labSpec())
	spec := labSpec()
	spec.Addresses = []Address{{linkOut, addr("209.165.200.235")}}
	spec.Routes = []Route{
		{Link: linkOut, Dst: netip.MustParsePrefix("0.0.0.0/0"), Gateway: addr("209.165.200.231")},
		{Link: linkOut, Dst: netip.MustParsePrefix("0.0.0.0/0"), Gateway: addr("209.165.200.232"), Priority: 9}, // waits behind the first
	}
	spec.Statics[0].Mapped = addr("209.165.200.236")
	spec.Intercepts = spec.Intercepts[:1]
	spec.Interfaces = spec.Interfaces[:2]
	l.update(k, spec)
	during := l.snapshot()
	for _, want := range []string{"inet 209.165.200.235/32", "inet 209.165.200.236/32", "default via 209.165.200.231 dev mapout", "default via 209.165.200.232 dev mapout proto static metric 9", "mapdmz/forwarding:0", "mapdmz/rp_filter:1"} {
		if !strings.Contains(during, want) {
			t.Errorf("%q is missing", want)
		}
	}
	for _, gone := range []string{"209.165.200.227", "inet 209.165.200.228", "via 209.165.200.230", boxDMZ, "dport 5070 tproxy"} {
		if strings.Contains(during, gone) {
			t.Errorf("%q is still there", gone)
		}
	}
	l.update(k, labSpec())
	if s := l.snapshot(); !strings.Contains(s, boxDMZ) || !strings.Contains(s, "via 209.165.200.230") || strings.Contains(s, "metric 9") {
		t.Errorf("the first spec does not come back:\n%s", s)
	}
	l.in(l.box, k.Remove)
	l.same("Remove", before)
}

// The kernel drops the later addresses of a network with its first; the new one must not go with the old.
func TestUpdateOfAnInterfaceAddress(t *testing.T) {
	l := newLab(t)
	before := l.snapshot()
	k := l.apply(labSpec())
	spec := labSpec()
	spec.Interfaces[0].Address = netip.MustParsePrefix("192.168.10.2/24")
	spec.Interfaces[1].Address = netip.MustParsePrefix("209.165.200.242/27")
	l.update(k, spec)
	during := l.snapshot()
	for _, want := range []string{"inet 192.168.10.2/24", "inet 209.165.200.242/27", "default via " + remoteAddr} {
		if !strings.Contains(during, want) {
			t.Errorf("%q is missing", want)
		}
	}
	if strings.Contains(during, "inet "+boxIn+"/") || strings.Contains(during, "inet "+boxOut+"/") {
		t.Error("a former address stays")
	}
	l.in(l.box, k.Remove)
	l.same("Remove", before)
}

// An update brings back what someone took away from the appliance.
func TestUpdateRepairs(t *testing.T) {
	l := newLab(t)
	before := l.snapshot()
	k := l.apply(labSpec())
	during := normal(l.snapshot())
	l.run(l.box, "sh", "-c", "nft flush ruleset; ip addr del "+mediaOut+"/32 dev mapout; ip route del default; ip rule del fwmark 0x1e; ip route flush table 30; echo 0 > /proc/sys/net/ipv4/ip_forward")
	l.update(k, labSpec())
	sorted := func(s string) string {
		lines := strings.Split(s, "\n")
		slices.Sort(lines)
		return strings.Join(lines, "\n")
	}
	if diff := cmp.Diff(sorted(during), sorted(normal(l.snapshot()))); diff != "" {
		t.Errorf("after the update (-before +after):\n%s", diff)
	}
	l.in(l.box, k.Remove)
	l.same("Remove", before)
}

// killedDaemon runs Apply in a process and kills it.
func (l *lab) killedDaemon() {
	l.t.Helper()
	l.in(l.box, func() error {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), envChild+"="+l.state)
		stdin, err := cmd.StdinPipe()
		if err != nil {
			return err
		}
		defer stdin.Close()
		out, err := cmd.StdoutPipe()
		if err != nil {
			return err
		}
		if err := cmd.Start(); err != nil {
			return err
		}
		line, err := bufio.NewReader(out).ReadString('\n')
		if line != "ready\n" {
			err = errors.Join(err, errors.New("child says "+line))
		} else if cerr := Cleanup(nil, l.state); !errors.Is(cerr, ErrRunning) {
			err = errors.Join(cerr, errors.New("Cleanup beside a living daemon is not refused"))
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return err
	})
}

func TestKilledDaemon(t *testing.T) {
	l := newLab(t)
	before := l.snapshot()
	l.killedDaemon()
	l.warm(l.ca)
	l.serve(l.outside, remoteAddr+":5061")
	l.serve(l.outside, remoteAddr+":80")
	l.reach("other traffic goes on", l.ca, "", remoteAddr+":80", remoteAddr+":80", caMapped)
	l.unreachable(l.ca, map[string]string{"outbound SIP": remoteAddr + ":5061"})

	l.in(l.box, func() error { return Cleanup(nil, l.state) })
	l.same("Cleanup", before)
	l.in(l.box, func() error { return Cleanup(nil, l.state) })

	l.killedDaemon()
	k := l.apply(labSpec())
	l.in(l.box, k.Remove)
	l.same("Apply after a kill, and Remove", before)
}

// Without the record Cleanup still takes rules and routing of the mark away.
func TestCleanupWithoutRecord(t *testing.T) {
	for name, spoil := range map[string]func(file string) error{
		"lost":   os.Remove,
		"broken": func(f string) error { return os.WriteFile(f, []byte("{"), 0o600) },
		"of another boot": func(f string) error {
			data, err := os.ReadFile(f)
			if err != nil {
				return err
			}
			_, rest, _ := strings.Cut(string(data), `"net_namespace"`)
			return os.WriteFile(f, []byte(`{"boot_id": "x", "net_namespace"`+rest), 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			l.killedDaemon()
			if err := spoil(filepath.Join(l.state, stateFile)); err != nil {
				t.Fatal(err)
			}
			l.in(l.box, func() error { return Cleanup(nil, l.state) })
			after := l.snapshot()
			if strings.Contains(after, "imeproxy") || strings.Contains(after, "0x1e") || strings.Contains(after, "table 30") {
				t.Errorf("left:\n%s", after)
			}
			if !strings.Contains(after, caMapped) || !strings.Contains(after, "ip_forward:1") {
				t.Errorf("something was removed that only a record can name:\n%s", after)
			}
			if _, err := os.Stat(filepath.Join(l.state, stateFile)); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the useless record stays: %v", err)
			}
		})
	}
}

// A full disk keeps nobody from taking calls: what cannot be recorded is told, and taken back when the daemon stops in order.
func TestFullDisk(t *testing.T) {
	l := newLab(t)
	if err := unix.Mount("tmpfs", l.state, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("a small file system cannot be mounted: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(l.state, unix.MNT_DETACH) })
	fill := filepath.Join(l.state, "fill")
	if err := os.WriteFile(fill, make([]byte, 1<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	before := l.snapshot()
	k := l.apply(labSpec())
	if !strings.Contains(l.log.String(), "no room to record what is added to the kernel") {
		t.Errorf("the log says %s", l.log.String())
	}
	changed := labSpec()
	changed.Addresses = append(changed.Addresses, Address{linkOut, addr("209.165.200.233")})
	l.in(l.box, func() error { return k.Update(changed) })
	if err := os.Remove(fill); err != nil {
		t.Fatal(err)
	}
	l.in(l.box, func() error { return k.Update(labSpec()) })
	if data, err := os.ReadFile(filepath.Join(l.state, stateFile)); err != nil || !strings.Contains(string(data), caMapped) {
		t.Errorf("with room again the record is %q, %v", data, err)
	}
	l.in(l.box, k.Remove)
	l.same("Remove", before)
}

func TestOneApplianceForAStateDirectory(t *testing.T) {
	l := newLab(t)
	k := l.apply(labSpec())
	during := normal(l.snapshot())
	if err := try(l.box, func() error { _, err := Apply(labSpec(), l.state, nil); return err }); !errors.Is(err, ErrRunning) {
		t.Errorf("second Apply: %v", err)
	}
	l.same("second Apply", during)
	l.in(l.box, k.Remove)
	l.in(l.box, func() error { return Cleanup(nil, l.state) })
}

func TestMissingCapabilities(t *testing.T) {
	if cannot != "" {
		t.Skip(cannot)
	}
	onOwnThread(func() {
		hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err := unix.Capset(&hdr, &none[0]); err != nil {
			t.Error(err)
			return
		}
		if _, err := Apply(labSpec(), t.TempDir(), nil); !errors.Is(err, ErrCapability) {
			t.Errorf("Apply: %v", err)
		}
		if err := Cleanup(nil, t.TempDir()); !errors.Is(err, ErrCapability) {
			t.Errorf("Cleanup: %v", err)
		}
		if _, _, err := ProbeARP("lo", addr("10.0.0.1"), 0); err == nil {
			t.Error("ProbeARP on lo succeeds")
		}
	})
}

// A change that leaves the rules alone does not replace them; one made by somebody else is put right by the next change, whatever that is.
func TestUntouchedRulesStay(t *testing.T) {
	l := newLab(t)
	k := l.apply(labSpec())
	gen := func() (n uint32) {
		l.in(l.box, func() (err error) {
			n, err = generation()
			return err
		})
		return n
	}
	before := gen()
	l.update(k, labSpec())
	if now := gen(); now != before {
		t.Errorf("%d transactions for a change of nothing", now-before)
	}
	l.in(l.box, func() error { return k.Know(addr(remoteAddr)) })
	l.in(l.box, func() error { return k.Shun(addr("198.51.100.9"), time.Minute) })
	before = gen()
	l.update(k, labSpec())
	if now := gen(); now != before {
		t.Errorf("%d transactions after those of the guard", now-before)
	}
	rules := func() string { return normal(l.run(l.box, "nft", "list", "table", "ip", TableFilter)) }
	want := rules()
	l.run(l.box, "nft", "flush", "chain", "ip", TableFilter, "forward")
	if rules() == want {
		t.Fatal("nothing was flushed")
	}
	l.update(k, labSpec())
	if rules() != want {
		t.Error("the rules that somebody has flushed did not come back")
	}
	// A foreign transaction between two of ours.
	l.run(l.box, "nft", "flush", "chain", "ip", TableFilter, "forward")
	l.in(l.box, func() error { return k.Know(addr(remoteAddr)) })
	l.update(k, labSpec())
	if rules() != want {
		t.Error("the rules did not come back behind a transaction of the guard")
	}
}
