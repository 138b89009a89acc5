package proxy

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"imeproxy/mapping"
	"imeproxy/proxy/config"
	"imeproxy/proxy/observe"
	"imeproxy/sipalg/dialog"
)

// This file answers what the access lists, classes and translations do: from the plan, and from what the kernel has counted.

// entryIDs gives each entry of the access lists the ID under which the kernel counts it. An entry that stays keeps its ID, wherever it stands in the list.
func entryIDs(cfg *config.Config) map[config.Pos]string {
	out := map[config.Pos]string{}
	for _, l := range cfg.AccessLists {
		seen := map[string]int{}
		for _, e := range l.Entries {
			e.Log = config.EntryLog{} // its count goes on when it logs otherwise
			text := l.Name + "\n" + e.String()
			sum := sha256.Sum256(fmt.Appendf(nil, "%s\n%d", text, seen[text]))
			seen[text]++
			out[e.Pos] = hex.EncodeToString(sum[:12])
		}
	}
	return out
}

// sameEntries says whether two configurations have the same entries at the same places.
func sameEntries(a, b *config.Config) bool {
	return slices.EqualFunc(a.AccessLists, b.AccessLists, func(x, y *config.AccessList) bool { return x.Name == y.Name && slices.Equal(x.Entries, y.Entries) })
}

// AccessLists gives the lists, or the named one, with how many connections each entry has decided on.
func (a *Appliance) AccessLists(name string) (observe.AccessLists, error) {
	p := a.plan.Load()
	hits, err := a.kernel.Hits()
	if err != nil {
		return observe.AccessLists{}, err
	}
	out := observe.AccessLists{Lists: []observe.AccessList{}}
	if name == "" {
		if out.Flows, err = a.loggedFlows(p, hits); err != nil {
			return out, err
		}
	}
	for _, l := range p.cfg.AccessLists {
		if name != "" && l.Name != name {
			continue
		}
		x := observe.AccessList{Name: l.Name, Use: p.uses(l.Name), Entries: []observe.AccessEntry{}}
		for i, e := range l.Entries {
			x.Entries = append(x.Entries, p.accessEntry(i+1, e, hits))
		}
		out.Lists = append(out.Lists, x)
	}
	if name != "" && len(out.Lists) == 0 {
		return out, fmt.Errorf("there is no access list %s", observe.Clean(name))
	}
	return out, nil
}

// accessEntry is an entry with what it has decided on.
func (p *plan) accessEntry(line int, e config.ACE, hits map[string]mapping.Hit) observe.AccessEntry {
	id := p.ids[e.Pos]
	x := observe.AccessEntry{Line: line, Text: e.Full(), Hits: hits[id].Packets, Remark: e.Remark != ""}
	if !x.Remark {
		x.Hash = entryHash(id)
	}
	return x
}

// loggedFlows counts the flows that are followed for entries that say log.
func (a *Appliance) loggedFlows(p *plan, hits map[string]mapping.Hit) (*observe.AccessFlows, error) {
	flows, err := a.kernel.Flows()
	out := &observe.AccessFlows{
		Total: len(flows), DenyFlowMax: p.cfg.DenyFlows(), AlertInterval: int(p.cfg.FlowAlerts() / time.Second),
		DeniedBeside: hits[mapping.IDDenyFull].Packets + a.flows.notFollowed(), PermittedBeside: hits[mapping.IDPermitFull].Packets,
	}
	for _, f := range flows {
		if !f.Permitted {
			out.Denied++
		}
	}
	return out, err
}

// uses says what asks an access list.
func (p *plan) uses(list string) []string {
	out := []string{}
	for _, g := range p.Groups {
		if g.Global == list && !slices.Contains(out, "access-group global") {
			out = append(out, "access-group global")
		}
		if g.ACL == list && g.Global != list {
			out = append(out, "access-group "+g.Direction+" on "+g.Interface.Nameif)
		}
	}
	for _, m := range p.cfg.ClassMaps {
		if m.AccessList == list {
			out = append(out, "class-map "+m.Name)
		}
	}
	return out
}

// ServicePolicies gives the policies in force, with the connections that their classes have taken.
func (a *Appliance) ServicePolicies() (observe.ServicePolicies, error) {
	p := a.plan.Load()
	hits, err := a.kernel.Hits()
	if err != nil {
		return observe.ServicePolicies{}, err
	}
	sessions, _ := a.sessions.snapshot()
	out := observe.ServicePolicies{Policies: []observe.ServicePolicy{}}
	for _, in := range slices.Concat(p.Inbound, p.Outbound) {
		c := observe.ServiceClass{Name: in.Class, UCIME: p.UCIME.Name, TLSProxy: in.TLSProxy.Name}
		counted := map[string]bool{}
		for _, f := range in.Flows {
			if id := p.ids[f.Pos]; !counted[id] {
				counted[id] = true
				c.Connections += hits[id].Packets
			}
		}
		for _, s := range sessions {
			if s.class.name == in.Class {
				c.Sessions++
			}
		}
		on := ""
		if in.Interface != nil {
			on = in.Interface.Nameif
		}
		i := slices.IndexFunc(out.Policies, func(x observe.ServicePolicy) bool { return x.Name == in.Policy && x.Interface == on })
		if i < 0 {
			i = len(out.Policies)
			out.Policies = append(out.Policies, observe.ServicePolicy{Interface: on, Name: in.Policy})
		}
		out.Policies[i].Classes = append(out.Policies[i].Classes, c)
	}
	return out, nil
}

// TLSSessions gives the sessions over TLS with the Internet.
func (a *Appliance) TLSSessions() observe.TLSSessions {
	out := observe.TLSSessions{InUse: a.limiter.InUse(), MostUsed: a.limiter.MostUsed(), Sessions: []observe.TLSSession{}}
	list, _ := a.sessions.snapshot()
	slices.SortFunc(list, func(x, y *session) int { return int(x.id) - int(y.id) })
	now := a.now()
	for _, s := range list {
		k := s.conn(dialog.Outside)
		if k == nil {
			continue
		}
		d := s.describe(now)
		domains := d.PeerDomains
		if domains == nil {
			domains = []string{}
		}
		out.Sessions = append(out.Sessions, observe.TLSSession{
			Proxy: s.class.proxy.Name, Outside: d.Outside, Inside: d.Inside, InsideTLS: s.agent.secure, PeerDomains: domains,
			TLSVersion: d.TLSVersion, CipherSuite: d.CipherSuite, Bytes: k.bytes.Load(), Idle: observe.Seconds(now.Sub(time.Unix(0, k.lastRead.Load()))),
		})
	}
	return out
}

// SIPCalls lists everything that stands between two ends, calls and what only asks.
func (a *Appliance) SIPCalls() observe.SIPCalls {
	out := observe.SIPCalls{Calls: []observe.SIPCall{}}
	now := a.now()
	for _, c := range a.calls.snapshot() {
		c.locked(func() {
			x := observe.SIPCall{CallID: c.d.ID, State: dialog.Early.String(), Direction: c.rec.Direction, From: c.rec.From, To: c.rec.To, Domain: c.domain, Idle: observe.Seconds(now.Sub(c.lastUsed))}
			if d := c.d.Confirmed(); d != nil {
				x.State = d.State.String()
			} else if c.recorded {
				x.State = "ended"
			}
			out.Calls = append(out.Calls, x)
		})
	}
	slices.SortFunc(out.Calls, func(x, y observe.SIPCall) int { return strings.Compare(x.CallID, y.CallID) })
	out.Total = len(out.Calls)
	return out
}

// Xlates gives the static translations, and those of the connections that the kernel translates now. What the proxy terminates is in `show conn`.
func (a *Appliance) Xlates() (observe.Xlates, error) {
	p := a.plan.Load()
	out := observe.Xlates{Xlates: []observe.Xlate{}}
	for _, s := range p.Statics {
		x := observe.Xlate{
			Protocol: strings.ToUpper(s.Proto), RealInterface: s.Real.Nameif, Real: s.RealAddr.String(), MappedInterface: s.Mapped.Nameif, Mapped: s.MappedAddr.String(), Static: true,
		}
		if s.RealPort != 0 {
			x.Portmap = true
			x.Real, x.Mapped = netip.AddrPortFrom(s.RealAddr, s.RealPort).String(), netip.AddrPortFrom(s.MappedAddr, s.MappedPort).String()
		}
		out.Xlates = append(out.Xlates, x)
	}
	all, err := a.kernel.Translations()
	if err != nil {
		return out, err
	}
	for _, t := range all {
		if t.SourceNAT {
			out.Xlates = append(out.Xlates, p.xlate(t.Proto, t.RealSrc, t.MappedSrc))
		}
		if t.DestNAT {
			out.Xlates = append(out.Xlates, p.xlate(t.Proto, t.RealDst, t.MappedDst))
		}
	}
	out.Omitted = len(all) == mapping.MaxTranslations
	return out, nil
}

// xlate is the translation of one end of a connection.
func (p *plan) xlate(proto string, real, mapped netip.AddrPort) observe.Xlate {
	name := func(a netip.Addr) string {
		for _, i := range p.interfaces() {
			if i.Address.Contains(a) {
				return i.Nameif
			}
		}
		return "?"
	}
	static := slices.ContainsFunc(p.Statics, func(s config.StaticTranslation) bool {
		return s.RealAddr == real.Addr() && s.MappedAddr == mapped.Addr() && (s.RealPort == 0 || s.RealPort == real.Port())
	})
	return observe.Xlate{
		Protocol: proto, RealInterface: name(real.Addr()), Real: real.String(), MappedInterface: name(mapped.Addr()), Mapped: mapped.String(),
		Static: static, Portmap: true,
	}
}

// errNotConfigured says that an interface is unknown.
var errNotConfigured = errors.New("the interface is not configured")

// TracePacket tells what would become of a first packet; nothing is sent.
func (a *Appliance) TracePacket(nameif, proto string, src, dst netip.AddrPort) (observe.PacketTrace, error) {
	p := a.plan.Load()
	i := slices.IndexFunc(p.cfg.Interfaces, func(i *config.Interface) bool { return i.Nameif == nameif })
	if i < 0 {
		return observe.PacketTrace{}, errNotConfigured
	}
	w, err := a.kernel.Trace(mapping.Packet{Link: p.cfg.Interfaces[i].Name, Proto: proto, Src: src.Addr(), Dst: dst.Addr(), SrcPort: src.Port(), DstPort: dst.Port()})
	if err != nil {
		return observe.PacketTrace{}, err
	}
	lines := map[string]string{}
	for _, l := range p.cfg.AccessLists {
		for _, e := range l.Entries {
			lines[p.ids[e.Pos]] = "access-list " + l.Name + " " + e.Full()
		}
	}
	out := observe.PacketTrace{Input: nameif, Action: "drop", Phases: []observe.TracePhase{}}
	for _, x := range w.Phases {
		t := observe.TracePhase{Type: x.Type, Result: "DROP", Text: x.Text}
		if x.Passed {
			t.Result = "ALLOW"
		}
		if x.ID != "" {
			t.Config = lines[x.ID]
		}
		out.Phases = append(out.Phases, t)
	}
	if w.Out != "" {
		out.Output = a.nameOf(w.Out)
	}
	if w.Allowed {
		out.Action = "allow"
	}
	out.Outcome = p.outcome(w, src)
	return out, nil
}

// outcome says in words what becomes of a packet.
func (p *plan) outcome(w mapping.Way, src netip.AddrPort) string {
	switch {
	case w.Proxied && p.agents[src.Addr()] == nil && p.isOutbound(w):
		return "the proxy resets it: " + src.Addr().String() + " is no ucm address"
	case w.Proxied:
		return "the proxy ends the connection here, asks for certificate and ticket, and opens its own to the other side"
	case w.Allowed && w.Local:
		return "it is for the appliance itself"
	case w.Allowed:
		return "it leaves from " + w.Src.String() + " to " + w.Dst.String()
	}
	return "it is dropped"
}

// isOutbound says whether an outbound class has taken a packet.
func (p *plan) isOutbound(w mapping.Way) bool {
	for _, c := range p.classes {
		for _, i := range c.intercepts {
			if c.outbound && len(w.Phases) > 0 && i.ID == w.Phases[0].ID {
				return true
			}
		}
	}
	return false
}
