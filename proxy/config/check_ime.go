package config

import (
	"fmt"
	"net/netip"
)

// callAgents finds the interfaces and translations of the call agents, and with them which side is outside.
func (k *checker) callAgents() {
	if k.c.UCIME == nil {
		return
	}
	if u := k.c.UCIME; u.ReportXR && u.NoRTCP {
		k.fail(u.Pos, u.Name, "quality-report rtcp-xr has no effect beside no rtcp, which drops what the far ends tell and takes no reports of our own", "remove one of the two")
	}
	for _, u := range k.c.UCIME.UCMs {
		r := ResolvedUCM{UCM: u, Interface: k.interfaceOf(u.Addr)}
		addr := u.Addr.String()
		if own := k.ownAddress(u.Addr); own != nil {
			k.fail(u.Pos, addr, fmt.Sprintf("%s is the address of interface %s itself", addr, own.Name), "the call agent's address is expected")
		}
		for _, s := range k.r.Statics {
			switch {
			case s.RealAddr == u.Addr && s.RealPort == 0:
				r.Mapped = s.MappedAddr
			case s.RealAddr == u.Addr && s.Proto == "tcp":
				r.Ports = append(r.Ports, s)
			case s.MappedAddr == u.Addr:
				k.fail(u.Pos, addr, fmt.Sprintf("%s is a mapped address", addr), "the real address of the call agent is expected: "+s.RealAddr.String())
			}
		}
		k.r.UCMs = append(k.r.UCMs, r)
		if r.Interface == nil {
			k.at(u.Pos, addr, fmt.Sprintf("no interface leads to the call agent %s", addr), "add its subnet to an interface, or a route").needs = []string{"*"}
			continue
		}
		if k.r.Inside == nil {
			k.r.Inside = r.Interface
		} else if k.r.Inside != r.Interface {
			k.fail(u.Pos, addr, fmt.Sprintf("the call agents are on several interfaces: %s and %s", k.r.Inside.Nameif, r.Interface.Nameif), "all call agents belong on one")
		}
	}
	if k.r.Inside == nil {
		return
	}
	k.r.Outside = k.outside()
	switch out := k.r.Outside; {
	case out == nil:
		k.at(k.r.Inside.Pos, "", "there is no outside interface", "two interfaces with a nameif and an address are needed").needs = []string{"*"}
	case k.r.Inside.SecurityLevel <= out.SecurityLevel:
		k.at(k.c.UCIME.UCMs[0].Pos, k.c.UCIME.UCMs[0].Addr.String(),
			fmt.Sprintf("the call agents are behind interface %s (security level %d), which is not above %s (security level %d)", k.r.Inside.Nameif, k.r.Inside.SecurityLevel, out.Nameif, out.SecurityLevel),
			"give the interface of the call agents the higher security-level").needs = []string{"security-level", "nameif", "ip"}
	}
	for _, i := range []*Interface{k.r.Inside, k.r.Outside} {
		if i != nil && i.Shutdown {
			k.fail(i.Pos, i.Name, fmt.Sprintf("interface %s carries calls and is shut down", i.Name), "add no shutdown to it")
		}
	}
	for i := range k.r.UCMs {
		k.direction(&k.r.UCMs[i])
		k.source(&k.r.UCMs[i])
	}
}

// outside is where the call agents are translated to; without a translation the least trusted other interface.
func (k *checker) outside() *Interface {
	for _, u := range k.r.UCMs {
		for _, s := range k.r.Statics {
			if s.RealAddr == u.Addr && s.Real == k.r.Inside {
				return s.Mapped
			}
		}
		for _, d := range k.r.Dynamics {
			if d.RealPrefix.Contains(u.Addr) && d.Real == k.r.Inside {
				return d.Mapped
			}
		}
	}
	var out *Interface
	for _, i := range k.c.Interfaces {
		if i != k.r.Inside && i.Nameif != "" && i.Address.IsValid() && (out == nil || i.SecurityLevel < out.SecurityLevel) {
			out = i
		}
	}
	return out
}

// direction refuses a translation of a call agent that is written the wrong way round: it would translate nothing, without a word.
func (k *checker) direction(u *ResolvedUCM) {
	if u.Interface == nil || k.r.Outside == nil {
		return
	}
	for _, s := range k.r.Statics {
		if s.RealAddr != u.Addr || s.Real == u.Interface {
			continue
		}
		k.at(k.objectOf(s).NAT.Pos, "("+s.Real.Nameif, fmt.Sprintf("the call agent %s is not behind interface %s but behind %s", u.Addr, s.Real.Nameif, u.Interface.Nameif),
			fmt.Sprintf("the real side stands first: nat (%s,%s)", u.Interface.Nameif, k.r.Outside.Nameif)).needs = []string{"ip", "nameif", "route", "ucm"}
	}
}

// source is the address that a call agent's own connections show outside. The longest dynamic translation wins.
func (k *checker) source(u *ResolvedUCM) {
	if u.Source = u.Mapped; u.Source.IsValid() {
		return
	}
	bits := -1
	for _, d := range k.r.Dynamics {
		if d.Mapped != k.r.Outside || !d.RealPrefix.Contains(u.Addr) || d.RealPrefix.Bits() <= bits {
			continue
		}
		bits, u.Source = d.RealPrefix.Bits(), d.MappedAddr
		if !u.Source.IsValid() && d.Mapped.Address.IsValid() {
			u.Source = d.Mapped.Address.Addr()
		}
	}
}

func (k *checker) media() {
	for _, m := range k.c.MediaTerminations {
		used := k.c.UCIME != nil && k.c.UCIME.MediaTermination == m.Name
		if !used {
			k.warn(m.Pos, m.Name, fmt.Sprintf("media-termination %q is not used", m.Name), "name it in uc-ime")
		}
		global, seen := 0, map[netip.Addr]bool{}
		for _, a := range m.Addresses {
			if a.Interface == "" {
				global++
			}
			if seen[a.Addr] {
				k.fail(a.Pos, a.Addr.String(), fmt.Sprintf("the address %s is used on two interfaces", a.Addr), "each interface has an address of its own")
			}
			seen[a.Addr] = true
			k.mediaAddress(a, used)
		}
		switch {
		case global > 0 && global < len(m.Addresses):
			for _, a := range m.Addresses {
				if a.Interface == "" {
					k.fail(a.Pos, "address", "a media-termination has either one global address or addresses on interfaces, never both", "add interface NAME, or remove the others")
				}
			}
		case global == 0 && len(m.Addresses) < 2 && used:
			has := "no address"
			if len(m.Addresses) == 1 {
				has = "an address on one interface alone"
			}
			k.at(m.Pos, m.Name, fmt.Sprintf("media-termination %q has %s", m.Name, has),
				"at least two are needed, inside and outside, or one global address").needs = []string{"address"}
		}
		if used {
			k.r.Media = m
		}
	}
}

// mediaAddress checks one address by itself and resolves it.
func (k *checker) mediaAddress(a MediaAddress, used bool) {
	addr := a.Addr.String()
	i := k.interfaceOf(a.Addr)
	if a.Interface != "" {
		if i = k.nameif(a.Pos, a.Interface); i == nil {
			return
		}
		net := i.Address.Masked()
		switch {
		case !i.Address.IsValid():
			k.at(a.Pos, a.Interface, fmt.Sprintf("interface %q has no address", a.Interface), "add ip address to it").needs = []string{"ip"}
			return
		case !net.Contains(a.Addr):
			k.fail(a.Pos, addr, fmt.Sprintf("%s is not in the subnet of interface %s", addr, a.Interface), "an unused address in "+net.String()+" is expected")
			return
		case net.Bits() < 31 && (a.Addr == net.Addr() || a.Addr == broadcast(net)):
			k.fail(a.Pos, addr, fmt.Sprintf("%s is the network's own or its broadcast address", addr), "an unused address in "+net.String()+" is expected")
			return
		}
	} else if i == nil {
		i = k.r.Outside
	}
	const hint = "an unused address is expected"
	if own := k.ownAddress(a.Addr); own != nil {
		k.fail(a.Pos, addr, fmt.Sprintf("%s is the address of interface %s itself", addr, own.Name), hint)
	}
	for _, s := range k.r.Statics {
		if s.MappedAddr == a.Addr {
			k.fail(a.Pos, addr, fmt.Sprintf("%s is the mapped address of %s", addr, s.RealAddr), hint)
			break
		}
	}
	for _, d := range k.r.Dynamics {
		if d.MappedAddr == a.Addr {
			k.fail(a.Pos, addr, fmt.Sprintf("%s is the mapped address of %s", addr, d.RealPrefix), hint)
			break
		}
	}
	for _, u := range k.r.UCMs {
		if u.Addr == a.Addr {
			k.fail(a.Pos, addr, fmt.Sprintf("%s is the address of a call agent", addr), hint)
		}
	}
	for _, r := range k.c.Routes {
		if r.Gateway == a.Addr {
			k.fail(a.Pos, addr, fmt.Sprintf("%s is the address of a gateway", addr), hint)
			break
		}
	}
	if used {
		k.resolveMedia(a, i)
	}
}

func (k *checker) resolveMedia(a MediaAddress, i *Interface) {
	k.r.MediaAddresses = append(k.r.MediaAddresses, ResolvedMedia{Addr: a.Addr, Interface: i})
	if a.Interface == "" {
		k.r.MediaInside, k.r.MediaOutside = a.Addr, a.Addr
		return
	}
	if i == k.r.Inside {
		k.r.MediaInside = a.Addr
	}
	if i == k.r.Outside {
		k.r.MediaOutside = a.Addr
	}
}

// proxy checks the uc-ime itself.
func (k *checker) proxy() {
	u := k.c.UCIME
	if u == nil {
		return
	}
	pos := place(u.Where, "media-termination", u.Pos)
	switch m := k.c.MediaTermination(u.MediaTermination); {
	case u.MediaTermination == "":
		k.at(u.Pos, u.Name, "the uc-ime has no media-termination", "add media-termination NAME to it").needs = []string{"media-termination"}
	case m == nil:
		missing(k, pos, "media-termination", u.MediaTermination, k.c.MediaTerminations, func(m *MediaTermination) string { return m.Name })
	case m.Line > pos.Line:
		k.fail(pos, u.MediaTermination, fmt.Sprintf("media-termination %q is named before it is created", m.Name), fmt.Sprintf("move line %d and what belongs to it before this", m.Line))
	case len(m.Addresses) >= 2 && k.r.Inside != nil && k.r.Outside != nil:
		k.bothSides(m)
	}
	if len(u.UCMs) == 0 {
		k.at(u.Pos, u.Name, "the uc-ime has no call agent", "add ucm address REAL-ADDRESS trunk-security-mode non-secure").needs = []string{"ucm"}
	}
	switch {
	case u.TicketEpoch == 0:
		k.at(u.Pos, u.Name, "the uc-ime has no ticket epoch and password", "add ticket epoch N password PASSWORD").needs = []string{"ticket"}
	case u.TicketPassword.Masked():
		k.fail(place(u.Where, "ticket", u.Pos), "password", "the password is masked", "type the real one; a printed configuration shows ***** in its place")
	}
	if u.Mapping != nil {
		k.mapping(u)
	}
}

// mapping checks the off-path mapping service.
func (k *checker) mapping(u *UCIME) {
	s := u.Mapping
	in, out := k.nameif(s.Pos, s.ListenInterface), k.nameif(s.Pos, s.UCIMEInterface)
	if in == nil || out == nil {
		return
	}
	for _, i := range []*Interface{in, out} {
		if !i.Address.IsValid() || i.Shutdown {
			k.fail(s.Pos, i.Nameif, fmt.Sprintf("interface %s has no address, or is shut down", i.Nameif), "the mapping service listens on an address of listening-interface and calls from uc-ime-interface")
		}
	}
	if in.SecurityLevel <= out.SecurityLevel {
		k.warn(s.Pos, s.ListenInterface, fmt.Sprintf("the mapping service listens on %s, which is no more secure than %s", in.Nameif, out.Nameif),
			"listening-interface is the call agents' side, uc-ime-interface that of the Internet")
	}
	if s.ListenPort >= u.MappingLow && s.ListenPort <= u.MappingHigh && u.MappingLow == u.MappingHigh {
		k.fail(s.Pos, "listening-port", "the range of the mappings is the port that the service listens on", "set mapping-service port-range LOW HIGH")
	}
	k.r.MappingListen, k.r.MappingOutside = in, out
}

// bothSides checks that an instance with addresses on interfaces covers the two that calls go between.
func (k *checker) bothSides(m *MediaTermination) {
	for _, side := range []struct {
		i *Interface
		a netip.Addr
	}{{k.r.Inside, k.r.MediaInside}, {k.r.Outside, k.r.MediaOutside}} {
		if !side.a.IsValid() {
			k.at(m.Pos, m.Name, fmt.Sprintf("media-termination %q has no address on interface %s", m.Name, side.i.Nameif), "add address A.B.C.D interface "+side.i.Nameif).needs = []string{"address", "nameif", "ip"}
		}
	}
}
