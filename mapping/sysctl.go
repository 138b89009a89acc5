package mapping

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
)

const (
	sysctlRoot    = "/proc/sys"
	ipForward     = "net/ipv4/ip_forward"
	confDir       = "net/ipv4/conf"
	allRPFilter   = confDir + "/all/rp_filter"
	ctHelper      = "net/netfilter/nf_conntrack_helper" // gone since Linux 6.0, where nothing attaches a helper by itself
	fwmarkAccept  = "net/ipv4/tcp_fwmark_accept"
	fwmarkReflect = "net/ipv4/fwmark_reflect"
	bridgeCall    = "net/bridge/bridge-nf-call-iptables"
	reservedPorts = "net/ipv4/ip_local_reserved_ports"
)

func readSysctl(name string) (string, error) {
	data, err := os.ReadFile(filepath.Join(sysctlRoot, name))
	return strings.TrimSpace(string(data)), err
}

// writeSysctl writes only what differs: in a container /proc/sys may be read-only and right.
func writeSysctl(s sysctl) error {
	if now, err := readSysctl(s.Name); err == nil && now == s.Value {
		return nil
	}
	if err := os.WriteFile(filepath.Join(sysctlRoot, s.Name), []byte(s.Value), 0); err != nil {
		return fmt.Errorf("set sysctl %s to %s: %w", strings.ReplaceAll(s.Name, "/", "."), s.Value, err)
	}
	return nil
}

func confName(link, key string) string { return filepath.Join(confDir, link, key) }

// wantedSysctls lists what the spec needs, in the order of writing; names that this kernel has not are left out.
func wantedSysctls(spec Spec) []sysctl {
	want := []sysctl{
		// An accepted connection that took over the mark of its SYN would be routed to the loopback interface.
		{fwmarkAccept, "0"},
		{fwmarkReflect, "0"},
		{ctHelper, "0"},
		// Packets of transparent sockets come and go with addresses that routing does not expect there.
		{allRPFilter, "0"},
	}
	for _, i := range spec.Interfaces {
		want = append(want, sysctl{confName(i.Link, "rp_filter"), "0"})
		if isBridge(i.Link) {
			// br_netfilter runs the rules on the bridge port and then loses the socket that tproxy has found.
			want = append(want, sysctl{bridgeCall, "0"})
		}
	}
	if r := spec.Reserved; r.Lo > 0 {
		now, _ := readSysctl(reservedPorts)
		want = append(want, sysctl{reservedPorts, withPorts(now, r)})
	}
	// Forwarding is the last, when rules are in force.
	want = append(want, sysctl{ipForward, "1"})
	for _, i := range spec.Interfaces {
		want = append(want, sysctl{confName(i.Link, "forwarding"), "1"})
	}
	return slices.DeleteFunc(want, func(s sysctl) bool {
		_, err := readSysctl(s.Name)
		return errors.Is(err, fs.ErrNotExist)
	})
}

// withPorts adds a range to a list of ports as the kernel writes it ("80,2000-2999"). What others have reserved stays.
func withPorts(list string, span PortSpan) string {
	type portRange struct{ lo, hi int }
	all := []portRange{{int(span.Lo), int(span.Hi)}}
	for _, f := range strings.FieldsFunc(list, func(r rune) bool { return r == ',' }) {
		lo, hi, ok := strings.Cut(strings.TrimSpace(f), "-")
		if !ok {
			hi = lo
		}
		l, err1 := strconv.Atoi(lo)
		h, err2 := strconv.Atoi(hi)
		if err1 == nil && err2 == nil {
			all = append(all, portRange{l, h})
		}
	}
	slices.SortFunc(all, func(a, b portRange) int { return a.lo - b.lo })
	merged := all[:1]
	for _, r := range all[1:] {
		if last := &merged[len(merged)-1]; r.lo <= last.hi+1 {
			last.hi = max(last.hi, r.hi)
		} else {
			merged = append(merged, r)
		}
	}
	var out []string
	for _, r := range merged {
		s := strconv.Itoa(r.lo)
		if r.hi > r.lo {
			s += "-" + strconv.Itoa(r.hi)
		}
		out = append(out, s)
	}
	return strings.Join(out, ",")
}

func isBridge(link string) bool {
	l, err := netlink.LinkByName(link)
	return err == nil && l.Type() == "bridge"
}

// sideSysctls keeps interfaces that are not ours as they are: ip_forward sets forwarding of every interface, and
// conf/all/rp_filter is a floor for the others. They are written after the wanted ones, with the values of before.
func sideSysctls(spec Spec) (side []sysctl) {
	forward, _ := readSysctl(ipForward)
	floor, _ := strconv.Atoi(first(readSysctl(allRPFilter)))
	entries, _ := os.ReadDir(filepath.Join(sysctlRoot, confDir))
	for _, e := range entries {
		link := e.Name()
		if _, ours := spec.link(link); ours || link == "all" {
			continue
		}
		if v, err := readSysctl(confName(link, "forwarding")); err == nil && forward == "0" {
			side = append(side, sysctl{confName(link, "forwarding"), v})
		}
		if own, err := strconv.Atoi(first(readSysctl(confName(link, "rp_filter")))); err == nil && own < floor && link != "default" {
			side = append(side, sysctl{confName(link, "rp_filter"), strconv.Itoa(floor)})
		}
	}
	return side
}

func first(s string, _ error) string { return s }

// previous reads the values that the given settings would replace. Settings that are right already are left out, but for
// forwarding of single interfaces, which changes with ip_forward.
func previous(settings []sysctl) []sysctl {
	var old []sysctl
	for _, s := range settings {
		now, err := readSysctl(s.Name)
		if err == nil && (now != s.Value || strings.HasSuffix(s.Name, "/forwarding")) {
			old = append(old, sysctl{s.Name, now})
		}
	}
	return old
}
