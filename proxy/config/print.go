package config

import (
	"cmp"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// writer gathers the sections of the canonical text.
type writer struct {
	b      strings.Builder
	reveal bool // the ticket password is written as it is
	all    bool // what is as it is without a command is written too
}

func (w *writer) secret(s Secret) string {
	if w.reveal {
		return s.Reveal()
	}
	return s.String()
}

func (w *writer) line(format string, values ...any) { fmt.Fprintf(&w.b, format+"\n", values...) }

// sub writes a line of a sub-mode when its condition holds.
func (w *writer) sub(when bool, format string, values ...any) {
	if when {
		w.line(" "+format, values...)
	}
}

// flag writes a command that is off when nobody has entered it.
func (w *writer) flag(indent string, on bool, command string) {
	if on {
		w.line("%s%s", indent, command)
	} else if w.all {
		w.line("%sno %s", indent, command)
	}
}

// section is a part of the canonical text under the names that `show running-config` takes for it.
type section struct {
	names []string
	write func(c *Config, w *writer)
}

// sections stand in the order of an ASA's own text. Translations follow the access lists, as there.
var sections = []section{
	{[]string{"hostname"}, func(c *Config, w *writer) { w.setting("hostname", c.Hostname) }},
	{[]string{"enable"}, writeEnable},
	{[]string{"domain-name"}, func(c *Config, w *writer) { w.setting("domain-name", c.DomainName) }},
	{[]string{"interface"}, writeInterfaces},
	{[]string{"banner"}, writeBanners},
	{[]string{"object"}, writeObjects},
	{[]string{"object-group"}, writeObjectGroups},
	{[]string{"object-group"}, writeServiceGroups},
	{[]string{"same-security-traffic"}, func(c *Config, w *writer) {
		w.flag("", c.SameSecurity, "same-security-traffic permit inter-interface")
	}},
	{[]string{"access-list"}, writeAccessLists},
	{[]string{"nat", "object"}, writeNAT},
	{[]string{"access-group"}, writeAccessGroups},
	{[]string{"route"}, writeRoutes},
	{[]string{"threat-detection"}, writeThreatDetection},
	{[]string{"logging"}, writeLogging},
	{[]string{"username"}, writeUsers},
	{[]string{"ssh"}, writeSSH},
	{[]string{"crypto"}, writeCrypto},
	{[]string{"tls-proxy"}, writeTLSProxies},
	{[]string{"ssl"}, writeSSL},
	{[]string{"media-termination"}, writeMedia},
	{[]string{"uc-ime"}, writeUCIME},
	{[]string{"peer-server"}, writePeerServer},
	{[]string{"class-map"}, writeClassMaps},
	{[]string{"policy-map"}, writePolicyMaps},
	{[]string{"service-policy"}, writeServicePolicies},
}

// String gives the canonical text of the configuration, with ***** for the password.
func (c *Config) String() string { return c.text(false) }

// Startup gives the canonical text with the ticket password in it: what a startup configuration must hold to be read again. It belongs
// into a file that nobody but the daemon's user reads, never into a log or an answer.
func (c *Config) Startup() string {
	if c.kept.of == c {
		return c.kept.startup
	}
	return c.text(true)
}

// All gives the canonical text with the settings that nobody made, at their defaults, and ***** for passwords. It can be read again, and means the same.
func (c *Config) All() string { return c.print(writer{all: true}) }

func (c *Config) text(reveal bool) string { return c.print(writer{reveal: reveal}) }

func (c *Config) print(like writer) string {
	var parts []string
	for _, s := range sections {
		w := writer{reveal: like.reveal, all: like.all}
		if s.write(c, &w); w.b.Len() > 0 {
			parts = append(parts, w.b.String())
		}
	}
	if len(parts) == 0 {
		return ""
	}
	return strings.Join(parts, "!\n")
}

// Section gives the canonical text of one section by its first keyword, such as "uc-ime" or "interface"; false when there is no
// section of that name. The text is empty when nothing is configured.
func (c *Config) Section(name string) (string, bool) {
	var w writer
	found := false
	for _, s := range sections {
		for _, n := range s.names {
			if n == name {
				found = true
				s.write(c, &w)
			}
		}
	}
	return w.b.String(), found
}

// SectionNames lists the names that Section takes, in the order of the text.
func SectionNames() []string {
	var out []string
	for _, s := range sections {
		out = append(out, s.names[0])
	}
	return out
}

func (w *writer) setting(keyword, value string) {
	if value != "" {
		w.line("%s %s", keyword, value)
	}
}

func writeBanners(c *Config, w *writer) {
	for _, kind := range bannerKinds {
		for _, b := range c.Banners {
			if b.Kind == kind {
				w.line("banner %s %s", kind, b.Text)
			}
		}
	}
}

func writeInterfaces(c *Config, w *writer) {
	for n, i := range c.Interfaces {
		if n > 0 {
			w.line("!")
		}
		w.line("interface %s", i.Name)
		w.sub(i.Description != "", "description %s", i.Description)
		w.sub(i.Shutdown, "shutdown")
		w.sub(w.all && !i.Shutdown, "no shutdown")
		w.sub(i.Nameif != "", "nameif %s", i.Nameif)
		w.sub(i.Nameif != "" || i.SecurityLevel > 0, "security-level %d", i.SecurityLevel)
		w.sub(i.Address.IsValid(), "ip address %s", netText(i.Address))
	}
}

// netText is an address with its mask.
func netText(p netip.Prefix) string {
	if !p.IsValid() {
		return ""
	}
	return p.Addr().String() + " " + maskText(p.Bits())
}

func writeObjects(c *Config, w *writer) {
	for _, o := range c.Objects {
		w.line("object network %s", o.Name)
		w.sub(o.Prefix.IsValid() && o.IsHost, "host %s", o.Prefix.Addr())
		w.sub(o.Prefix.IsValid() && !o.IsHost, "subnet %s", netText(o.Prefix))
		w.sub(o.First.IsValid(), "range %s %s", o.First, o.Last)
		w.sub(o.Description != "", "description %s", o.Description)
	}
}

func writeObjectGroups(c *Config, w *writer) {
	for _, g := range c.ObjectGroups {
		w.line("object-group network %s", g.Name)
		w.sub(g.Description != "", "description %s", g.Description)
		for _, m := range g.Members {
			switch {
			case m.Group != "":
				w.sub(true, "group-object %s", m.Group)
			case m.Object != "":
				w.sub(true, "network-object object %s", m.Object)
			case m.Prefix.Bits() == 32:
				w.sub(true, "network-object host %s", m.Prefix.Addr())
			default:
				w.sub(true, "network-object %s", netText(m.Prefix))
			}
		}
	}
}

func writeServiceGroups(c *Config, w *writer) {
	for _, g := range c.ServiceGroups {
		w.line("object-group service %s%s", g.Name, space(g.Proto))
		w.sub(g.Description != "", "description %s", g.Description)
		for _, m := range g.Members {
			switch {
			case m.Group != "":
				w.sub(true, "group-object %s", m.Group)
			case g.Proto != "":
				w.sub(true, "port-object%s", m.Dst)
			default:
				text := m.Proto
				if !m.Src.Any() {
					text += " source" + m.Src.String()
				}
				if !m.Dst.Any() {
					text += " destination" + m.Dst.String()
				}
				w.sub(true, "service-object %s", text)
			}
		}
	}
}

func writeNAT(c *Config, w *writer) {
	for _, o := range c.Objects {
		if o.NAT != nil {
			w.line("object network %s", o.Name)
			w.sub(true, "nat %s", o.NAT)
		}
	}
}

// String is the command behind `nat`.
func (n *NAT) String() string {
	kind, to := "static", n.MappedObject
	if n.Dynamic {
		kind = "dynamic"
	}
	switch {
	case n.MappedInterface:
		to = "interface"
	case n.MappedAddr.IsValid():
		to = n.MappedAddr.String()
	}
	s := fmt.Sprintf("(%s,%s) %s %s", n.Real, n.Mapped, kind, to)
	if n.Service != nil {
		s += fmt.Sprintf(" service %s %d %d", n.Service.Proto, n.Service.RealPort, n.Service.MappedPort)
	}
	return s
}

func writeAccessLists(c *Config, w *writer) {
	if c.DenyFlowMax != 0 || w.all {
		w.line("access-list deny-flow-max %d", c.DenyFlows())
	}
	if c.AlertInterval != 0 || w.all {
		w.line("access-list alert-interval %d", c.FlowAlerts()/time.Second)
	}
	var b []byte // there may be 20,000 lines, printed at each change
	for _, l := range c.AccessLists {
		for i := range l.Entries {
			b = append(append(append(b[:0], "access-list "...), l.Name...), ' ')
			b = append(l.Entries[i].appendTo(b, w.all), '\n')
			w.b.Write(b)
		}
	}
}

// String is the command behind the list's name.
func (e ACE) String() string { return string(e.appendTo(nil, false)) }

// Full is the command with the level and interval of its log, even where they are the defaults.
func (e ACE) Full() string { return string(e.appendTo(nil, true)) }

func (e *ACE) appendTo(b []byte, all bool) []byte {
	if e.Remark != "" {
		return append(append(b, "remark "...), e.Remark...)
	}
	b = append(b, "extended deny "...)
	if e.Permit {
		b = append(b[:len(b)-len("deny ")], "permit "...)
	}
	if e.Services != "" {
		b = append(append(b, "object-group "...), e.Services...)
	} else {
		b = append(b, e.Proto...)
	}
	ports := func(r PortRange, neq bool) {
		if neq {
			b = strconv.AppendUint(append(b, " neq "...), uint64(r.Lo), 10)
		} else {
			b = r.appendTo(b)
		}
	}
	b = e.Src.appendTo(append(b, ' '))
	ports(e.SrcPorts, e.SrcNeq)
	b = e.Dst.appendTo(append(b, ' '))
	ports(e.DstPorts, e.DstNeq)
	if e.DstGroup != "" {
		b = append(append(b, " object-group "...), e.DstGroup...)
	}
	b = e.Log.appendTo(b, all)
	if e.Inactive {
		b = append(b, " inactive"...)
	}
	return b
}

// String is the endpoint as an entry has it.
func (e Endpoint) String() string { return string(e.appendTo(nil)) }

func (e *Endpoint) appendTo(b []byte) []byte {
	switch {
	case e.Any:
		return append(b, "any"...)
	case e.Object != "":
		return append(append(b, "object "...), e.Object...)
	case e.Group != "":
		return append(append(b, "object-group "...), e.Group...)
	case e.Prefix.Bits() == 32:
		return e.Prefix.Addr().AppendTo(append(b, "host "...))
	}
	return append(b, netText(e.Prefix)...)
}

// String is the range with its operator, after a blank; nothing for any port.
func (r PortRange) String() string { return string(r.appendTo(nil)) }

func (r PortRange) appendTo(b []byte) []byte {
	switch {
	case r.Any():
		return b
	case r.Lo == r.Hi:
		return strconv.AppendUint(append(b, " eq "...), uint64(r.Lo), 10)
	}
	b = strconv.AppendUint(append(b, " range "...), uint64(r.Lo), 10)
	return strconv.AppendUint(append(b, ' '), uint64(r.Hi), 10)
}

func writeAccessGroups(c *Config, w *writer) {
	for _, g := range c.AccessGroups {
		if g.Direction == "global" {
			w.line("access-group %s global", g.ACL)
		} else {
			w.line("access-group %s %s interface %s", g.ACL, g.Direction, g.Interface)
		}
	}
}

func writeRoutes(c *Config, w *writer) {
	for _, r := range c.Routes {
		w.line("route %s %s %s %d", r.Interface, netText(r.Dst), r.Gateway, max(1, r.Metric))
	}
}

func writeThreatDetection(c *Config, w *writer) {
	if c.ShunDuration > 0 {
		w.line("threat-detection scanning-threat shun duration %d", c.ShunDuration/time.Second)
	} else if w.all {
		w.line("no threat-detection scanning-threat shun")
	}
}

// writeCrypto puts key pairs before the trustpoints that name them, and certificates behind.
func writeCrypto(c *Config, w *writer) {
	for _, x := range c.CryptoActions {
		switch {
		case x.Kind != GenerateKey:
		case x.Algorithm == "ecdsa":
			w.line("crypto key generate ecdsa label %s elliptic-curve %d", x.Label, x.Bits)
		default:
			w.line("crypto key generate rsa label %s modulus %d", x.Label, x.Bits)
		}
	}
	for _, t := range c.Trustpoints {
		w.line("crypto ca trustpoint %s", t.Name)
		w.sub(t.Enrollment != "", "enrollment %s", t.Enrollment)
		w.sub(t.FQDN != "", "fqdn %s", t.FQDN)
		w.sub(t.SubjectName != "", "subject-name %s", t.SubjectName)
		w.sub(t.KeyPair != "", "keypair %s", t.KeyPair)
	}
	for _, x := range c.CryptoActions {
		switch x.Kind {
		case Enroll:
			w.line("crypto ca enroll %s", x.Trustpoint)
		case Authenticate:
			w.line("crypto ca authenticate %s", x.Trustpoint)
			w.certificates(x.PEM)
		case ImportCertificate:
			w.line("crypto ca import %s certificate", x.Trustpoint)
			w.certificates(x.PEM)
		case ExportIdentity:
			w.line("crypto ca export %s identity-certificate", x.Trustpoint)
		}
	}
}

func (w *writer) certificates(pem []byte) {
	if len(pem) > 0 {
		w.line("%squit", pem)
	}
}

func writeTLSProxies(c *Config, w *writer) {
	if c.TLSProxyMaxSessions > 0 {
		w.line("tls-proxy maximum-sessions %d", c.TLSProxyMaxSessions)
	} else if w.all {
		w.line("tls-proxy maximum-sessions %d", DefaultTLSProxySessions)
	}
	for _, t := range c.TLSProxies {
		w.line("tls-proxy %s", t.Name)
		w.sub(t.ServerTrustpoint != "", "server trust-point %s", t.ServerTrustpoint)
		w.sub(t.ClientTrustpoint != "", "client trust-point %s", t.ClientTrustpoint)
		w.sub(len(t.ClientCipherSuites) > 0, "client cipher-suite %s", strings.Join(t.ClientCipherSuites, " "))
	}
}

func writeSSL(c *Config, w *writer) {
	server, client := c.SSLServerVersion, c.SSLClientVersion
	if w.all {
		server, client = cmp.Or(server, DefaultTLSVersion), cmp.Or(client, DefaultTLSVersion)
	}
	w.setting("ssl server-version", server)
	w.setting("ssl client-version", client)
	w.setting("ssl encryption", strings.Join(c.SSLEncryption, " "))
}

func writeMedia(c *Config, w *writer) {
	for _, m := range c.MediaTerminations {
		w.line("media-termination %s", m.Name)
		for _, a := range m.Addresses {
			w.sub(a.Interface == "", "address %s", a.Addr)
			w.sub(a.Interface != "", "address %s interface %s", a.Addr, a.Interface)
		}
		w.sub(w.all || m.MinPort != DefaultMinPort || m.MaxPort != DefaultMaxPort, "rtp-min-port %d rtp-max-port %d", m.MinPort, m.MaxPort)
		w.sub(m.Engine != "", "engine %s", m.Engine)
		w.sub(w.all || m.BatchWait != DefaultBatchWait, "batch-wait %d", m.BatchWait.Microseconds())
	}
}

func writeUCIME(c *Config, w *writer) {
	if c.MappingIdle > 0 {
		w.line("timeout uc-ime-mapping %d", c.MappingIdle/time.Minute)
	} else if w.all {
		w.line("timeout uc-ime-mapping %d", DefaultMappingIdle/time.Minute)
	}
	u := c.UCIME
	if u == nil {
		return
	}
	w.line("uc-ime %s", u.Name)
	w.sub(u.MediaTermination != "", "media-termination %s", u.MediaTermination)
	for _, a := range u.UCMs {
		security := "non-secure"
		if a.Secure {
			security = "secure"
		}
		w.sub(true, "ucm address %s trunk-security-mode %s", a.Addr, security)
	}
	w.sub(u.TicketEpoch > 0, "ticket epoch %d password %s", u.TicketEpoch, w.secret(u.TicketPassword))
	w.sub(u.TicketRejectDrop, "ticket reject-action drop")
	w.sub(w.all && !u.TicketRejectDrop, "ticket reject-action reject")
	for _, t := range u.Transfers {
		w.sub(true, "transfer permit %s", t)
	}
	w.sub(u.MonitoringTimer > 0 && (w.all || u.MonitoringTimer != DefaultMonitoringTimer), "fallback monitoring timer %d", u.MonitoringTimer/time.Millisecond)
	w.sub(u.HoldDownTimer > 0 && (w.all || u.HoldDownTimer != DefaultHoldDownTimer), "fallback hold-down timer %d", u.HoldDownTimer/time.Second)
	w.sub(u.NotificationRate > 0 && (w.all || u.NotificationRate != DefaultNotificationRate), "fallback notification rate %d", u.NotificationRate)
	w.sub(u.SensitivityFile != "", "fallback sensitivity-file %s", u.SensitivityFile)
	if u.Collector.IsValid() {
		w.sub(true, "quality-report collector %s port %d", u.Collector.Addr(), u.Collector.Port())
	}
	w.flag(" ", u.ReportXR, "quality-report rtcp-xr")
	if m := u.Mapping; m != nil {
		w.sub(true, "mapping-service listening-interface %s listening-port %d uc-ime-interface %s", m.ListenInterface, m.ListenPort, m.UCIMEInterface)
	}
	w.sub(w.all || u.MappingQuota != DefaultMappingQuota, "mapping-service quota %d", u.MappingQuota)
	w.sub(w.all || u.MappingLow != DefaultMappingLow || u.MappingHigh != DefaultMappingHigh, "mapping-service port-range %d %d", u.MappingLow, u.MappingHigh)
	w.sub(w.all || u.MappingLifetime != DefaultMappingLifetime, "mapping-service lifetime %d", u.MappingLifetime/time.Second)
	w.flag(" ", u.MappingAllowPrivate, "mapping-service allow-private")
	w.sub(u.NoRTCP, "no rtcp")
	w.sub(w.all && !u.NoRTCP, "rtcp")
}

func writeClassMaps(c *Config, w *writer) {
	for _, m := range c.ClassMaps {
		w.line("class-map %s", m.Name)
		w.sub(m.AccessList != "", "match access-list %s", m.AccessList)
	}
}

func writePolicyMaps(c *Config, w *writer) {
	for _, m := range c.PolicyMaps {
		w.line("policy-map %s", m.Name)
		for _, k := range m.Classes {
			w.line(" class %s", k.Class)
			if i := k.Inspect; i != nil {
				name := ""
				if i.Map != "" {
					name = i.Map + " "
				}
				w.line("  inspect sip %suc-ime %s tls-proxy %s", name, i.UCIME, i.TLSProxy)
			}
			for _, d := range k.DSCP {
				w.line("  set dscp %s %s", d.Media, d.Value)
			}
		}
	}
}

func writeServicePolicies(c *Config, w *writer) {
	for _, s := range c.ServicePolicies {
		if s.Global {
			w.line("service-policy %s global", s.Policy)
		} else {
			w.line("service-policy %s interface %s", s.Policy, s.Interface)
		}
	}
}
