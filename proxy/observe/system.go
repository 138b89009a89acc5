package observe

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// InterfaceStates is the answer to `show interface`.
type InterfaceStates struct {
	Interfaces []InterfaceState `json:"interfaces"`
}

// InterfaceState is one configured interface as the kernel has it.
type InterfaceState struct {
	Name          string `json:"name"`
	Nameif        string `json:"nameif"`
	SecurityLevel int    `json:"security_level"`
	Address       string `json:"address,omitempty"` // with the prefix length
	Present       bool   `json:"present"`           // the kernel has an interface of this name
	Up            bool   `json:"up"`                // taken into use
	Link          bool   `json:"link"`              // a cable, and something at its other end
	MAC           string `json:"mac,omitempty"`
	MTU           int    `json:"mtu"`
	In            Flow   `json:"in"`
	Out           Flow   `json:"out"`
}

// Flow counts what went one way through an interface since it exists.
type Flow struct {
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
	Errors  uint64 `json:"errors"`
	Dropped uint64 `json:"dropped"`
}

func upDown(up bool) string {
	if up {
		return "up"
	}
	return "down"
}

// Text gives each interface in an ASA's words.
func (s InterfaceStates) Text() string {
	var b strings.Builder
	for _, i := range s.Interfaces {
		fmt.Fprintf(&b, "Interface %s \"%s\", ", Clean(i.Name), Clean(i.Nameif))
		if !i.Present {
			b.WriteString("is not there: the kernel has no interface of this name\n")
			continue
		}
		fmt.Fprintf(&b, "is %s, line protocol is %s\n", upDown(i.Up), upDown(i.Up && i.Link))
		fmt.Fprintf(&b, "  MAC address %s, MTU %d, security level %d\n", ciscoMAC(i.MAC), i.MTU, i.SecurityLevel)
		if p, err := netip.ParsePrefix(i.Address); err == nil {
			fmt.Fprintf(&b, "  IP address %s, subnet mask %s\n", p.Addr(), net.IP(net.CIDRMask(p.Bits(), 32)))
		}
		fmt.Fprintf(&b, "  %d packets input, %d bytes, %d errors, %d dropped\n", i.In.Packets, i.In.Bytes, i.In.Errors, i.In.Dropped)
		fmt.Fprintf(&b, "  %d packets output, %d bytes, %d errors, %d dropped\n", i.Out.Packets, i.Out.Bytes, i.Out.Errors, i.Out.Dropped)
	}
	return b.String()
}

// ciscoMAC writes 02:00:5e:10:00:01 as 0200.5e10.0001; another text stays as it is.
func ciscoMAC(mac string) string {
	hex := strings.ReplaceAll(mac, ":", "")
	if len(hex) != 12 {
		return Clean(mac)
	}
	return Clean(hex[:4] + "." + hex[4:8] + "." + hex[8:])
}

// RouteTable is the answer to `show route`: the kernel's main table.
type RouteTable struct {
	Routes []RouteEntry `json:"routes"`
}

// RouteEntry is one route.
type RouteEntry struct {
	Network   string `json:"network"` // with the prefix length
	Gateway   string `json:"gateway"` // "" = directly connected
	Metric    int    `json:"metric"`
	Interface string `json:"interface"` // its nameif, or the Linux name where it has none
}

// Text gives a route a line; C is connected, S static or of another program.
func (t RouteTable) Text() string {
	var b strings.Builder
	for _, r := range t.Routes {
		p, err := netip.ParsePrefix(r.Network)
		if err != nil {
			continue
		}
		kind, via := "C", "is directly connected"
		if r.Gateway != "" {
			kind, via = "S", fmt.Sprintf("[%d/0] via %s", r.Metric+1, Clean(r.Gateway))
		}
		fmt.Fprintf(&b, "%s    %s %s %s, %s\n", kind, p.Addr(), net.IP(net.CIDRMask(p.Bits(), 32)), via, Clean(r.Interface))
	}
	return b.String()
}

// ARPTable is the answer to `show arp`.
type ARPTable struct {
	Neighbors []ARPEntry `json:"neighbors"`
}

// ARPEntry is a neighbor that answered.
type ARPEntry struct {
	Interface string `json:"interface"`
	Address   string `json:"address"`
	MAC       string `json:"mac"`
}

// Text gives a neighbor a line.
func (t ARPTable) Text() string {
	var b strings.Builder
	for _, n := range t.Neighbors {
		fmt.Fprintf(&b, "        %s %s %s\n", Clean(n.Interface), Clean(n.Address), ciscoMAC(n.MAC))
	}
	return b.String()
}

// Resources is the answer to `show cpu` and `show memory`: of the daemon, not of the whole machine.
type Resources struct {
	CPUSeconds  float64 `json:"cpu_seconds"`  // used since the start
	CPUPercent  float64 `json:"cpu_percent"`  // of one core, on average since the start
	Cores       int     `json:"cores"`        // that the daemon may use
	MemoryBytes uint64  `json:"memory_bytes"` // resident
	HeapBytes   uint64  `json:"heap_bytes"`   // live objects
	Goroutines  int     `json:"goroutines"`
}

// Text gives a figure a line.
func (r Resources) Text() string {
	return fmt.Sprintf("CPU used: %.1f s, %.1f %% of one core since the start (%s)\nMemory: %d KB resident, %d KB of live objects\nGoroutines: %d\n",
		r.CPUSeconds, r.CPUPercent, Count(r.Cores, "core"), r.MemoryBytes/1024, r.HeapBytes/1024, r.Goroutines)
}
