package proxy

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"imeproxy/proxy/capture"
	"imeproxy/proxy/config"
	"imeproxy/proxy/disk"
	"imeproxy/proxy/observe"
	"imeproxy/proxy/remote"
	"imeproxy/proxy/trace"
)

// This file reads what the kernel says of itself (proc(5)): interfaces, routes, neighbors, and what the daemon uses.

// Interfaces gives the configured interfaces as the kernel has them.
func (a *Appliance) Interfaces() observe.InterfaceStates {
	counts := map[string][2]observe.Flow{}
	if text, err := os.ReadFile("/proc/net/dev"); err == nil {
		counts = deviceCounters(string(text))
	}
	out := observe.InterfaceStates{Interfaces: []observe.InterfaceState{}}
	for _, i := range a.plan.Load().cfg.Interfaces {
		s := observe.InterfaceState{Name: i.Name, Nameif: i.Nameif, SecurityLevel: i.SecurityLevel, In: counts[i.Name][0], Out: counts[i.Name][1]}
		if i.Address.IsValid() {
			s.Address = i.Address.String()
		}
		if dev, err := net.InterfaceByName(i.Name); err == nil {
			s.Present, s.MTU, s.MAC = true, dev.MTU, dev.HardwareAddr.String()
			s.Up, s.Link = dev.Flags&net.FlagUp != 0, dev.Flags&net.FlagRunning != 0
		}
		out.Interfaces = append(out.Interfaces, s)
	}
	return out
}

// checkInterfaces refuses a configuration that uses cards which this machine does not have, and says which it has. Those that are shut down, or
// have no name or no address, are often listed on an ASA.
func checkInterfaces(cfg *config.Config) error {
	var errs []error
	for _, i := range cfg.Interfaces {
		if !inUse(i) {
			continue
		}
		if _, err := net.InterfaceByName(i.Name); err != nil {
			errs = append(errs, fmt.Errorf("interface %s: there is none of this name: this machine has %s", i.Name, machineInterfaces()))
		}
	}
	return errors.Join(errs...)
}

// linkFlags are the flags of a card of this machine.
func linkFlags(name string) (net.Flags, error) {
	dev, err := net.InterfaceByName(name)
	if err != nil {
		return 0, err
	}
	return dev.Flags, nil
}

// linkGrace is how long after the start a card may be without link: one that the start has switched on negotiates for some seconds.
const linkGrace = 10 * time.Second

// linkProblems tells which interfaces of the configuration pass nothing: a cable that is out is otherwise seen by calls that do not come about.
func linkProblems(p *plan, now time.Time, flags func(name string) (net.Flags, error)) (out []observe.Problem) {
	for _, i := range p.cfg.Interfaces {
		if !inUse(i) {
			continue
		}
		problem := observe.Problem{Code: "interface_down", Object: i.Name, Severity: observe.Major, Since: now, WhatToDo: "look at the cable, the switch and the virtual machine's network"}
		f, err := flags(i.Name)
		switch {
		case err != nil:
			problem.Impact, problem.WhatToDo = fmt.Sprintf("nothing passes interface %s: the card is gone", i.Nameif), "bring the card back; `ip link` prints those that there are"
		case f&net.FlagUp == 0:
			problem.Impact, problem.WhatToDo = fmt.Sprintf("nothing passes interface %s: the card was switched off", i.Nameif), fmt.Sprintf("`ip link set %s up`", i.Name)
		case f&net.FlagRunning == 0:
			problem.Impact = fmt.Sprintf("nothing passes interface %s: it has no link", i.Nameif)
		default:
			continue
		}
		if i == p.Inside || i == p.Outside {
			problem.Severity = observe.Critical
		}
		out = append(out, problem)
	}
	return out
}

// inUse tells whether anything is done with an interface.
func inUse(i *config.Interface) bool { return i.Nameif != "" && i.Address.IsValid() && !i.Shutdown }

// machineInterfaces lists the cards of the machine for a person.
func machineInterfaces() string {
	var names []string
	all, _ := net.Interfaces()
	for _, i := range all {
		if i.Flags&net.FlagLoopback == 0 {
			names = append(names, i.Name)
		}
	}
	if names == nil {
		return "none but the loopback"
	}
	return strings.Join(names, ", ")
}

// deviceCounters reads /proc/net/dev: a line an interface, eight counters in and eight out.
func deviceCounters(text string) map[string][2]observe.Flow {
	out := map[string][2]observe.Flow{}
	for line := range strings.Lines(text) {
		name, rest, found := strings.Cut(line, ":")
		f := strings.Fields(rest)
		if !found || len(f) < 16 {
			continue
		}
		n := make([]uint64, len(f))
		for i := range f {
			n[i], _ = strconv.ParseUint(f[i], 10, 64)
		}
		out[strings.TrimSpace(name)] = [2]observe.Flow{
			{Bytes: n[0], Packets: n[1], Errors: n[2], Dropped: n[3]},
			{Bytes: n[8], Packets: n[9], Errors: n[10], Dropped: n[11]},
		}
	}
	return out
}

// nameOf is the nameif of a Linux interface, or its own name.
func (a *Appliance) nameOf(link string) string {
	for _, i := range a.plan.Load().cfg.Interfaces {
		if i.Name == link && i.Nameif != "" {
			return i.Nameif
		}
	}
	return link
}

// Routes gives the kernel's main routing table.
func (a *Appliance) Routes() (observe.RouteTable, error) {
	text, err := os.ReadFile("/proc/net/route")
	if err != nil {
		return observe.RouteTable{}, fmt.Errorf("routes: %w", err)
	}
	t := routeTable(string(text))
	for i := range t.Routes {
		t.Routes[i].Interface = a.nameOf(t.Routes[i].Interface)
	}
	return t, nil
}

// routeTable reads /proc/net/route: Iface Destination Gateway Flags RefCnt Use Metric Mask ..., addresses in hexadecimal in the byte order of
// the machine.
func routeTable(text string) observe.RouteTable {
	out := observe.RouteTable{Routes: []observe.RouteEntry{}}
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 8 {
			continue
		}
		dst, ok1 := hexAddr(f[1])
		gateway, ok2 := hexAddr(f[2])
		mask, ok3 := hexAddr(f[7])
		metric, err := strconv.Atoi(f[6])
		if !ok1 || !ok2 || !ok3 || err != nil {
			continue // the head
		}
		m := mask.As4()
		bits, _ := net.IPv4Mask(m[0], m[1], m[2], m[3]).Size()
		r := observe.RouteEntry{Network: netip.PrefixFrom(dst, bits).String(), Metric: metric, Interface: f[0]}
		if !gateway.IsUnspecified() {
			r.Gateway = gateway.String()
		}
		out.Routes = append(out.Routes, r)
	}
	return out
}

func hexAddr(s string) (netip.Addr, bool) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != 4 {
		return netip.Addr{}, false
	}
	return netip.AddrFrom4([4]byte{b[3], b[2], b[1], b[0]}), true // little-endian, as every machine that this runs on
}

// Neighbors gives the hosts on the links that answered for their addresses.
func (a *Appliance) Neighbors() (observe.ARPTable, error) {
	text, err := os.ReadFile("/proc/net/arp")
	if err != nil {
		return observe.ARPTable{}, fmt.Errorf("neighbors: %w", err)
	}
	t := arpTable(string(text))
	for i := range t.Neighbors {
		t.Neighbors[i].Interface = a.nameOf(t.Neighbors[i].Interface)
	}
	return t, nil
}

// arpTable reads /proc/net/arp: address, type, flags, MAC, mask, device. Those without an answer (flag 2 not set) are left out.
func arpTable(text string) observe.ARPTable {
	out := observe.ARPTable{Neighbors: []observe.ARPEntry{}}
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) != 6 {
			continue
		}
		flags, err := strconv.ParseUint(strings.TrimPrefix(f[2], "0x"), 16, 32)
		if err != nil || flags&2 == 0 {
			continue
		}
		out.Neighbors = append(out.Neighbors, observe.ARPEntry{Interface: f[5], Address: f[0], MAC: f[3]})
	}
	return out
}

// Resources gives what the daemon uses.
func (a *Appliance) Resources() observe.Resources {
	out := observe.Resources{Cores: runtime.NumCPU(), Goroutines: runtime.NumGoroutine()}
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) == nil {
		out.CPUSeconds = float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
	}
	if up := a.now().Sub(a.started).Seconds(); up > 0 {
		out.CPUPercent = 100 * out.CPUSeconds / up
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	out.HeapBytes = m.HeapAlloc
	if text, err := os.ReadFile("/proc/self/statm"); err == nil {
		if f := strings.Fields(string(text)); len(f) > 1 {
			pages, _ := strconv.ParseUint(f[1], 10, 64)
			out.MemoryBytes = pages * uint64(os.Getpagesize())
		}
	}
	return out
}

// Disk is disk0:.
func (a *Appliance) Disk() *disk.Disk { return a.disk }

// KnownHosts are those that files are copied from and to.
func (a *Appliance) KnownHosts() remote.Hosts { return remote.NewHosts(a.opt.StateDir) }

// Trace is where operators look at what happens.
func (a *Appliance) Trace() *trace.Hub { return &a.trace }

// Captures are those that operators began.
func (a *Appliance) Captures() *capture.Store { return a.capture }

// setSyslog makes the syslog servers those of a plan.
func (a *Appliance) setSyslog(p *plan) {
	if a.opt.Syslog == nil {
		return
	}
	set := observe.SyslogSettings{Most: p.cfg.Logging.Level(), Hostname: p.hostname()}
	if p.cfg.Logging.Enable {
		for _, h := range p.cfg.Logging.Hosts {
			set.Hosts = append(set.Hosts, netip.AddrPortFrom(h.Addr, h.Port))
		}
	}
	a.opt.Syslog.Set(set)
}
