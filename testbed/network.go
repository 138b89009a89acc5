package testbed

import (
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
)

// newHost makes a namespace with its loopback up and IPv6 off: router
// solicitations would only blur captures.
func (l *Lab) newHost(role string) (*Host, error) {
	h := &Host{Name: role, NS: l.prefix + role, dir: l.Dir, keep: l.opts.Keep}
	if _, err := run(exec.CommandContext, "ip", "netns", "add", h.NS); err != nil {
		return nil, err
	}
	l.hosts = append(l.hosts, h)
	if err := h.Sysctl("net/ipv6/conf/all/disable_ipv6", "1"); err != nil {
		return nil, err
	}
	if err := h.Sysctl("net/ipv6/conf/default/disable_ipv6", "1"); err != nil {
		return nil, err
	}
	return h, h.ip("link set lo up")
}

// ip runs several ip(8) commands in the namespace, all or an error.
func (h *Host) ip(commands ...string) error {
	cmd := exec.Command("ip", "-n", h.NS, "-batch", "-")
	cmd.Stdin = strings.NewReader(strings.Join(commands, "\n") + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: ip %s: %w: %s", h.Name, strings.Join(commands, "; "), err, out)
	}
	return nil
}

// wire joins two namespaces by a virtual cable. Offloading is switched off:
// packets stand on the wire as on a real one, with their checksums.
func wire(a *Host, ifA string, b *Host, ifB string) error {
	if err := a.ip(fmt.Sprintf("link add %s type veth peer name %s netns %s", ifA, ifB, b.NS)); err != nil {
		return err
	}
	for _, end := range []struct {
		h    *Host
		port string
	}{{a, ifA}, {b, ifB}} {
		if out, err := end.h.Run("ethtool", "-K", end.port, "gro", "off", "gso", "off", "tso", "off", "tx", "off"); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		if err := end.h.ip("link set " + end.port + " up"); err != nil {
			return err
		}
	}
	return nil
}

// network builds
//
//	phone-a, ucm-a --- lan --- edge-a --- inet --- edge-b --- lan --- ucm-b, phone-b
//	                                       |
//	                                    outsider
//
// The edges that are proxies get cables alone: addresses and routes are the
// appliance's work.
func (l *Lab) network() error {
	if l.opts.Direct {
		return l.directNetwork()
	}
	var err error
	mk := func(role string) (h *Host) {
		if err == nil {
			h, err = l.newHost(role)
		}
		return h
	}
	l.lan = mk("lan")
	l.Internet = &Internet{Host: mk("inet")}
	l.Outsider = mk("outsider")
	for _, e := range l.Enterprises() {
		e.PhoneHost, e.UCMHost, e.EdgeHost = mk("phone-"+e.Letter), mk("ucm-"+e.Letter), mk("proxy-"+e.Letter)
	}
	if err != nil {
		return err
	}
	if err := l.Internet.Sysctl("net/ipv4/ip_forward", "1"); err != nil {
		return err
	}
	for _, e := range l.Enterprises() {
		if err := l.wireEnterprise(e); err != nil {
			return err
		}
	}
	if l.opts.PSTN {
		if err := l.wirePSTN(); err != nil {
			return err
		}
	}
	l.OutsiderIP = netip.MustParseAddr("198.51.100.10")
	if err := wire(l.Outsider, "eth0", l.Internet.Host, "eo"); err != nil {
		return err
	}
	if err := l.Internet.ip("addr add 198.51.100.1/24 dev eo"); err != nil {
		return err
	}
	return l.Outsider.ip("addr add 198.51.100.10/24 dev eth0", "route add default via 198.51.100.1")
}

// directNetwork is Options.Direct.
func (l *Lab) directNetwork() error {
	var hosts [3]*Host
	for i, role := range []string{"phone-a", "proxy-a", "proxy-b"} {
		h, err := l.newHost(role)
		if err != nil {
			return err
		}
		hosts[i] = h
	}
	phone, edge, far := hosts[0], hosts[1], hosts[2]
	a, b := l.A, l.B
	a.PhoneHost, a.UCMHost, a.EdgeHost = phone, phone, edge
	b.PhoneHost, b.UCMHost, b.EdgeHost = far, far, far
	l.lan, l.Internet, l.Outsider = phone, &Internet{Host: far}, far
	if err := wire(phone, "eth0", edge, "ein"); err != nil {
		return err
	}
	if err := wire(edge, "eout", far, "ea"); err != nil {
		return err
	}
	if err := phone.ip(
		fmt.Sprintf("addr add %s/%d dev eth0", a.PhoneIP, a.Inside.Bits()), fmt.Sprintf("addr add %s/%d dev eth0", a.UCMIP, a.Inside.Bits()),
		"route add default via "+a.InsideIP.String(),
	); err != nil {
		return err
	}
	if err := far.ip(
		fmt.Sprintf("addr add %s/%d dev ea", a.Gateway, a.Outside.Bits()), fmt.Sprintf("addr add %s/32 dev ea", b.Mapped), fmt.Sprintf("addr add %s/32 dev ea", b.MediaOut),
	); err != nil || a.side.Edge == EdgeImeproxy {
		return err
	}
	return edge.ip(
		fmt.Sprintf("addr add %s/%d dev ein", a.InsideIP, a.Inside.Bits()), fmt.Sprintf("addr add %s/32 dev ein", a.MediaIn),
		fmt.Sprintf("addr add %s/%d dev eout", a.OutsideIP, a.Outside.Bits()), fmt.Sprintf("addr add %s/32 dev eout", a.MediaOut),
		"route add default via "+a.Gateway.String(),
	)
}

// wireEnterprise lays the cables and addresses of one side.
func (l *Lab) wireEnterprise(e *Enterprise) error {
	br := "br-" + e.Letter
	if err := l.lan.ip("link add "+br+" type bridge", "link set "+br+" up"); err != nil {
		return err
	}
	for _, c := range []struct {
		h            *Host
		ifName, port string
	}{{e.PhoneHost, "eth0", "p" + e.Letter}, {e.UCMHost, "eth0", "u" + e.Letter}, {e.EdgeHost, "ein", "e" + e.Letter}} {
		if err := wire(c.h, c.ifName, l.lan, c.port); err != nil {
			return err
		}
		if err := l.lan.ip("link set " + c.port + " master " + br); err != nil {
			return err
		}
	}
	if err := wire(e.EdgeHost, "eout", l.Internet.Host, "e"+e.Letter); err != nil {
		return err
	}
	bits := e.Outside.Bits()
	if err := l.Internet.ip(fmt.Sprintf("addr add %s/%d dev e%s", e.Gateway, bits, e.Letter)); err != nil {
		return err
	}
	for h, addr := range map[*Host]netip.Addr{e.PhoneHost: e.PhoneIP, e.UCMHost: e.UCMIP} {
		if err := h.ip(fmt.Sprintf("addr add %s/%d dev eth0", addr, e.Inside.Bits()), "route add default via "+e.InsideIP.String()); err != nil {
			return err
		}
	}
	switch e.side.Edge {
	case EdgeImeproxy:
		return nil
	case EdgeMachine:
		return e.plugMachine()
	}
	return l.addressEdge(e)
}

// plugMachine joins the cards of a virtual machine to the edge's cables.
func (e *Enterprise) plugMachine() error {
	for i, cable := range []string{"ein", "eout"} {
		bridge := "br" + cable
		if err := e.EdgeHost.ip(
			"link add "+bridge+" type bridge", "tuntap add "+Taps[i]+" mode tap",
			"link set "+Taps[i]+" master "+bridge, "link set "+cable+" master "+bridge,
			"link set "+Taps[i]+" up", "link set "+bridge+" up",
		); err != nil {
			return err
		}
	}
	return nil
}

// wirePSTN adds the PBXs and the PSTN's gateways to the inside networks. The PSTN forwards no packet from one to the other.
func (l *Lab) wirePSTN() (err error) {
	if l.PSTNHost, err = l.newHost("pstn"); err != nil {
		return err
	}
	for _, e := range l.Enterprises() {
		if e.PBXHost, err = l.newHost("pbx-" + e.Letter); err != nil {
			return err
		}
		for _, c := range []struct {
			h            *Host
			ifName, port string
			addr         netip.Addr
		}{{e.PBXHost, "eth0", "x" + e.Letter, e.PBXIP}, {l.PSTNHost, "t" + e.Letter, "s" + e.Letter, e.PSTNIP}} {
			if err := wire(c.h, c.ifName, l.lan, c.port); err != nil {
				return err
			}
			if err := l.lan.ip("link set " + c.port + " master br-" + e.Letter); err != nil {
				return err
			}
			if err := c.h.ip(fmt.Sprintf("addr add %s/%d dev %s", c.addr, e.Inside.Bits(), c.ifName)); err != nil {
				return err
			}
		}
	}
	return nil
}

// addressEdge sets up an edge that is not the appliance. With plain routers
// the Internet carries inside addresses: no real one would.
func (l *Lab) addressEdge(e *Enterprise) error {
	if err := e.EdgeHost.ip(
		fmt.Sprintf("addr add %s/%d dev ein", e.InsideIP, e.Inside.Bits()),
		fmt.Sprintf("addr add %s/32 dev ein", e.MediaIn),
		fmt.Sprintf("addr add %s/%d dev eout", e.OutsideIP, e.Outside.Bits()),
		fmt.Sprintf("addr add %s/32 dev eout", e.Mapped),
		fmt.Sprintf("addr add %s/32 dev eout", e.MediaOut),
		"route add default via "+e.Gateway.String(),
	); err != nil {
		return err
	}
	if e.side.Edge != EdgeRouter {
		return nil
	}
	if err := e.EdgeHost.Sysctl("net/ipv4/ip_forward", "1"); err != nil {
		return err
	}
	return l.Internet.ip(fmt.Sprintf("route add %s via %s", e.Inside.Masked(), e.OutsideIP))
}
