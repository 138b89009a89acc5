package mapping

import (
	"net/netip"
	"strings"
	"testing"
)

func TestValidate(t *testing.T) {
	if err := Validate(labSpec()); err != nil {
		t.Fatalf("the lab's spec: %v", err)
	}
	if err := Validate(Spec{}); err != nil {
		t.Fatalf("the empty spec: %v", err)
	}
	net := netip.MustParsePrefix
	for name, c := range map[string]struct {
		spoil func(*Spec)
		want  string
	}{
		"no link name":           {func(s *Spec) { s.Interfaces[1].Link = "" }, "1 to 15 characters"},
		"long link name":         {func(s *Spec) { s.Interfaces[1].Link = "sixteen-letters-" }, "1 to 15 characters"},
		"level":                  {func(s *Spec) { s.Interfaces[0].Level = 101 }, "security level 101"},
		"link twice":             {func(s *Spec) { s.Interfaces[2].Link = linkIn }, "given twice"},
		"overlapping networks":   {func(s *Spec) { s.Interfaces[2].Address = net("192.168.10.129/25") }, "overlaps"},
		"IPv6 interface":         {func(s *Spec) { s.Interfaces[2].Address = net("fd00::1/64") }, "not an IPv4"},
		"address on no link":     {func(s *Spec) { s.Addresses[0].Link = "x" }, `"x" is no interface`},
		"multicast address":      {func(s *Spec) { s.Addresses[0].Addr = addr("224.0.0.1") }, "unicast"},
		"no address":             {func(s *Spec) { s.Addresses[0].Addr = netip.Addr{} }, "unicast"},
		"route with host bits":   {func(s *Spec) { s.Routes[0].Dst = net("10.1.1.1/24") }, "not an IPv4 network"},
		"route twice":            {func(s *Spec) { s.Routes = append(s.Routes, s.Routes[0]) }, "given twice"},
		"route gateway":          {func(s *Spec) { s.Routes[0].Gateway = addr("::1") }, "gateway"},
		"intercept without link": {func(s *Spec) { s.Intercepts[0].InLinks = nil }, "no interface"},
		"intercept unknown link": {func(s *Spec) { s.Intercepts[0].InLinks = []string{"x"} }, "no interface of"},
		"intercept ports":        {func(s *Spec) { s.Intercepts[0].PortLo = 6001 }, "6001-6000"},
		"intercept listener":     {func(s *Spec) { s.Intercepts[0].ListenPort = 0 }, "listening port"},
		"inbound to a network":   {func(s *Spec) { s.Intercepts[1].Dst = net("209.165.200.224/27") }, "one mapped address"},
		"inbound to any":         {func(s *Spec) { s.Intercepts[1].Dst = netip.Prefix{} }, "one mapped address"},
		"static same link":       {func(s *Spec) { s.Statics[0].MappedLink = linkIn }, "both mapin"},
		"static one port":        {func(s *Spec) { s.Statics[1].RealPort = 0; s.Statics[1].Proto = "" }, "both ports or none"},
		"static protocol":        {func(s *Spec) { s.Statics[1].Proto = "icmp" }, "does not fit"},
		"static protocol whole":  {func(s *Spec) { s.Statics[0].Proto = "tcp" }, "does not fit"},
		"static mapped twice":    {func(s *Spec) { s.Statics[1] = s.Statics[0]; s.Statics[1].Real = addr("192.168.10.9") }, "taken by another"},
		"static real twice":      {func(s *Spec) { s.Statics[1] = s.Statics[0]; s.Statics[1].Mapped = addr("209.165.200.250") }, "translated twice"},
		"static on interface":    {func(s *Spec) { s.Statics[0].Mapped = addr(boxOut) }, "that of interface mapout"},
		"dynamic network":        {func(s *Spec) { s.Dynamics[0].Real = netip.Prefix{} }, "not an IPv4 network"},
		"dynamic link":           {func(s *Spec) { s.Dynamics[0].RealLink = "x" }, "no interface of"},
		"group direction":        {func(s *Spec) { s.Groups[0].Direction = "both" }, "in or out"},
		"group twice":            {func(s *Spec) { s.Groups = append(s.Groups, s.Groups[0]) }, "given twice"},
		"rule protocol":          {func(s *Spec) { s.Groups[0].Rules[0].Proto = "gre" }, "none of ip"},
		"rule ports of icmp":     {func(s *Spec) { s.Groups[0].Rules[0].Proto = "icmp" }, "icmp has no ports"},
		"rule ports":             {func(s *Spec) { s.Groups[0].Rules[0].DstHi = 1 }, "8000-1"},
		"rule IPv6":              {func(s *Spec) { s.Groups[0].Rules[0].Src = net("fd00::/8") }, "not IPv4"},
		"media ports":            {func(s *Spec) { s.Media[0].Hi = 1 }, "turned round"},
		"media no ports":         {func(s *Spec) { s.Media[0].Lo = 0 }, "no ports"},
		"media overlap":          {func(s *Spec) { s.Media = append(s.Media, s.Media[0]) }, "overlap"},
		"media on a static":      {func(s *Spec) { s.Media[0].Addr = addr(caMapped) }, "static translation"},
		"media on a dynamic":     {func(s *Spec) { s.Media[0].Addr = addr(patMapped) }, "dynamic translation"},
		"media on masquerade":    {func(s *Spec) { s.Media[0].Addr = addr(boxOut); s.Dynamics[0].Mapped = netip.Addr{} }, "dynamic translation"},
		"steering to three":      {func(s *Spec) { s.Steering.Workers = []uint16{1, 2, 3} }, "no power of two"},
		"steering to port 0":     {func(s *Spec) { s.Steering.Workers = []uint16{0} }, "has no port"},
		"open protocol":          {func(s *Spec) { s.Open[0].Proto = "ip" }, "none of tcp, udp"},
		"open port":              {func(s *Spec) { s.Open[0].Port = 0 }, "no port"},
		"open link":              {func(s *Spec) { s.Open[0].Link = "x" }, "no interface of"},
	} {
		t.Run(name, func(t *testing.T) {
			spec := clone(labSpec())
			c.spoil(&spec)
			if err := Validate(spec); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q in it", err, c.want)
			}
		})
	}
}

// All mistakes are told, not the first alone.
func TestValidateTellsAll(t *testing.T) {
	spec := labSpec()
	spec.Interfaces[0].Level = -1
	spec.Open[0].Port = 0
	err := Validate(spec)
	if err == nil || strings.Count(err.Error(), "\n") != 1 {
		t.Errorf("error %v, want two lines", err)
	}
}
