package config

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func resolve(t *testing.T, text string) *Resolved {
	t.Helper()
	c, found := Load("f", []byte(text))
	if found.HasErrors() {
		t.Fatal(found.Error())
	}
	r, _ := c.Resolve()
	return r
}

func TestResolveInline(t *testing.T) {
	r := resolve(t, inline(t))
	if r.Inside.Name != "ein" || r.Outside.Name != "eout" || r.UCIME.Name != "local-ent-ime" || r.Media.MinPort != 2000 {
		t.Errorf("got %+v", r)
	}
	if r.MediaInside != addr("192.168.10.3") || r.MediaOutside != addr("209.165.200.228") || len(r.MediaAddresses) != 2 || r.MediaAddresses[0].Interface != r.Outside {
		t.Errorf("media: %+v", r)
	}
	if d := cmp.Diff([]ResolvedUCM{{UCM: UCM{Addr: addr("192.168.10.30")}, Interface: r.Inside, Mapped: addr("209.165.200.227"), Source: addr("209.165.200.227")}}, r.UCMs, noPlaces); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]Flow{{UCM: addr("192.168.10.30"), Ports: PortRange{5070, 5070}, Mapped: addr("209.165.200.227"), MappedPorts: PortRange{5070, 5070}}}, r.Inbound[0].Flows, noPlaces); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]Flow{{UCM: addr("192.168.10.30"), Ports: PortRange{5000, 6000}, Mapped: addr("209.165.200.227")}}, r.Outbound[0].Flows, noPlaces); d != "" {
		t.Error(d)
	}
	if r.Inbound[0].TLSProxy.Name != "remote_to_local-ent" || r.Outbound[0].TLSProxy.Name != "local_to_remote-ent" || r.Inbound[0].Interface != nil || r.Inbound[0].Policy != "ime-policy" {
		t.Errorf("inspections: %+v, %+v", r.Inbound, r.Outbound)
	}
	if d := cmp.Diff([]StaticTranslation{{Real: r.Inside, Mapped: r.Outside, RealAddr: addr("192.168.10.30"), MappedAddr: addr("209.165.200.227")}}, r.Statics, noPlaces); d != "" {
		t.Error(d)
	}
	host := prefix("192.168.10.30/32")
	want := []ResolvedGroup{{Interface: r.Outside, Direction: "in", ACL: "incoming", Rules: []Rule{{Permit: true, Proto: "tcp", Dst: host, DstPorts: PortRange{5070, 5070}}}}}
	if d := cmp.Diff(want, r.Groups, noPlaces); d != "" {
		t.Error(d)
	}
	if len(r.Routes) != 1 || r.Routes[0].On != r.Outside || len(r.Dynamics) != 0 {
		t.Errorf("routes %+v, dynamic %+v", r.Routes, r.Dynamics)
	}
}

func TestResolvePAT(t *testing.T) {
	r := resolve(t, edit(t, " nat (inside,outside) static ucm_map_1", " nat (inside,outside) static 209.165.200.229 service tcp 5070 5571\n"+
		"object network all\n host 192.168.10.0 255.255.255.0\n nat (inside,outside) dynamic 209.165.200.230\n"+
		"object network more\n subnet 192.168.0.0 255.255.0.0\n nat (inside,outside) dynamic interface"))
	u := r.UCMs[0]
	if u.Mapped.IsValid() || len(u.Ports) != 1 || u.Source != addr("209.165.200.230") {
		t.Errorf("call agent: %+v", u)
	}
	f := r.Inbound[0].Flows[0]
	if f.Mapped != addr("209.165.200.229") || f.Ports != (PortRange{5070, 5070}) || f.MappedPorts != (PortRange{5571, 5571}) {
		t.Errorf("inbound: %+v", f)
	}
	if f := r.Outbound[0].Flows[0]; f.Mapped != addr("209.165.200.230") {
		t.Errorf("outbound: %+v", f)
	}
	want := []DynamicTranslation{
		{Real: r.Inside, Mapped: r.Outside, RealPrefix: prefix("192.168.10.0/24"), MappedAddr: addr("209.165.200.230")},
		{Real: r.Inside, Mapped: r.Outside, RealPrefix: prefix("192.168.0.0/16")},
	}
	if d := cmp.Diff(want, r.Dynamics, noPlaces); d != "" {
		t.Error(d)
	}
}

func TestResolveHidesBehindTheInterface(t *testing.T) {
	r := resolve(t, edit(t, " nat (inside,outside) static ucm_map_1", " nat (inside,outside) static 209.165.200.229 service tcp 5070 5571\n"+
		"object network all\n subnet 192.168.10.0 255.255.255.0\n nat (inside,outside) dynamic interface"))
	if r.UCMs[0].Source != addr("209.165.200.225") {
		t.Errorf("source %s", r.UCMs[0].Source)
	}
}

func TestResolveGlobalMedia(t *testing.T) {
	r := resolve(t, edit(t, " address 209.165.200.228 interface outside\n address 192.168.10.3 interface inside\n", " address 209.165.200.228\n"))
	if r.MediaInside != r.MediaOutside || len(r.MediaAddresses) != 1 || r.MediaAddresses[0].Interface != r.Outside {
		t.Errorf("media: %+v", r.MediaAddresses)
	}
}

func TestResolveNarrowsAClassToTheCallAgents(t *testing.T) {
	// Phones of the subnet must not be taken for call agents.
	r := resolve(t, edit(t, "tcp 192.168.10.30 255.255.255.255 any range 5000 6000", "tcp 192.168.10.0 255.255.255.0 198.51.100.0 255.255.255.0 range 5000 6000"))
	want := []Flow{{UCM: addr("192.168.10.30"), Peer: prefix("198.51.100.0/24"), Ports: PortRange{5000, 6000}, Mapped: addr("209.165.200.227")}}
	if d := cmp.Diff(want, r.Outbound[0].Flows, noPlaces); d != "" {
		t.Error(d)
	}
}

func TestResolveForwardingOnly(t *testing.T) {
	r := resolve(t, "interface e\n nameif inside\n ip address 10.0.0.1 255.0.0.0\naccess-list a permit icmp object o any\nobject network o\n subnet 10.0.0.0 255.0.0.0\naccess-group a in interface inside")
	if r.UCIME != nil || r.Inside != nil || len(r.Inbound) != 0 || len(r.Groups) != 1 || r.Groups[0].Rules[0].Src != netip.MustParsePrefix("10.0.0.0/8") {
		t.Errorf("got %+v", r)
	}
}

func TestResolveOnInterfaces(t *testing.T) {
	r := resolve(t, edit(t, "service-policy ime-policy global", "service-policy ime-policy interface inside\nservice-policy ime-policy interface outside"))
	if len(r.Inbound) != 1 || len(r.Outbound) != 1 || r.Inbound[0].Interface != r.Inside {
		t.Errorf("a call is inspected on both its interfaces: %+v %+v", r.Inbound, r.Outbound)
	}
	r = resolve(t, edit(t, "route outside", "interface edmz\n nameif dmz\n security-level 50\n ip address 10.9.9.1 255.255.255.0\nroute outside",
		"service-policy ime-policy global", "service-policy ime-policy interface dmz\nservice-policy ime-policy interface outside"))
	if len(r.Inbound) != 1 || len(r.Outbound) != 1 {
		t.Errorf("a policy on two interfaces, one of them in no call's way: %+v %+v", r.Inbound, r.Outbound)
	}
}

func TestPortRange(t *testing.T) {
	for _, c := range []struct {
		r    PortRange
		port uint16
		want bool
	}{{PortRange{}, 1, true}, {PortRange{5, 7}, 5, true}, {PortRange{5, 7}, 7, true}, {PortRange{5, 7}, 8, false}, {PortRange{5, 7}, 4, false}} {
		if c.r.Contains(c.port) != c.want {
			t.Errorf("%v contains %d: want %v", c.r, c.port, c.want)
		}
	}
}
