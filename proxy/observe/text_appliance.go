package observe

import (
	"encoding/json"
	"fmt"
	"sort"
	"strings"
	"time"
)

// asaTime prints a moment as an ASA does, in UTC: 10:12:14 UTC Nov 1 2026.
func asaTime(t time.Time) string { return t.UTC().Format("15:04:05 UTC Jan 2 2006") }

type row struct {
	label string
	value uint64
}

// rows gives the statistics in printed order. A cause whose name is taken already gets the prefix of its group, so that no JSON key
// stands twice.
func (s Statistics) rows() []row {
	var out []row
	seen := make(map[string]bool)
	add := func(group, label string, v uint64) {
		label = Clean(label)
		for seen[Snake(label)] {
			label = group + " " + strings.ToLower(label)
		}
		seen[Snake(label)] = true
		out = append(out, row{label, v})
	}
	for _, l := range TicketLabels {
		v, ok := s.Tickets[l]
		if !ok {
			v = s.Tickets[Snake(l)]
		}
		add("Ticket", l, v)
	}
	add("", "Tickets verified", s.TicketsVerified)
	sessions := []row{
		{"Sessions refused", s.SessionsRefused},
		{"OPTIONS answered", s.OptionsAnswered},
		{"Unknown dialog", s.UnknownDialog},
		{"Dialogs opened", s.DialogsOpened},
		{"Dialogs ended", s.DialogsEnded},
		{"Keepalives", s.Keepalives},
	}
	for _, r := range sessions { // their keys are promised: no cause may take them
		seen[Snake(r.label)] = true
	}
	for _, k := range sortedKeys(s.Verification) {
		add("Verification", Label(k), s.Verification[k])
	}
	out = append(out, sessions...)
	for _, k := range sortedKeys(s.HandshakeFailures) {
		add("TLS", "Handshake failed "+strings.ReplaceAll(k, "_", " "), s.HandshakeFailures[k])
	}
	for _, k := range sortedKeys(s.Other) {
		add("Other", Label(k), s.Other[k])
	}
	return out
}

func sortedKeys(m map[string]uint64) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

// Text gives one "Label: n" a line.
func (s Statistics) Text() string {
	p := new(page)
	for _, r := range s.rows() {
		p.line(0, "%s: %d", r.label, r.value)
	}
	return p.String()
}

// MarshalJSON gives one flat object, the printed labels in lower snake case as keys, in printed order.
func (s Statistics) MarshalJSON() ([]byte, error) {
	var o object
	for _, r := range s.rows() {
		o = append(o, member{Snake(r.label), r.value})
	}
	return json.Marshal(o)
}

// Text gives the layout of `show tls-proxy`.
func (t TLSProxySessions) Text() string {
	p := new(page)
	p.line(0, "Maximum sessions: %d", t.MaximumSessions)
	p.use(t.InUse, t.MostUsed)
	p.line(0, "Refused: %d", t.Refused)
	for _, x := range t.Proxies {
		p.line(0, "TLS-Proxy '%s': in use %d", Clean(x.Name), x.InUse)
		if x.ServerTrustpoint != "" {
			p.line(8, "Server proxy:")
			p.field(16, "Trust-point", x.ServerTrustpoint)
		}
		if x.ClientTrustpoint != "" || len(x.CipherSuites) > 0 {
			p.line(8, "Client proxy:")
			p.field(16, "Trust-point", x.ClientTrustpoint)
			p.field(16, "Cipher suites", strings.Join(x.CipherSuites, " "))
		}
	}
	return p.String()
}

// Text gives the layout of `show conn`.
func (c Conns) Text() string {
	p := new(page)
	p.use(c.InUse, c.MostUsed)
	for _, x := range c.Conns {
		p.line(0, "%s %s %s %s %s, idle %s, bytes %d, flags %s", Clean(x.Protocol), orWord(x.OutsideInterface, "outside"), Clean(x.Outside),
			orWord(x.InsideInterface, "inside"), Clean(x.Inside), x.Idle, x.Bytes, Clean(x.Flags))
	}
	return p.String()
}

// MarshalJSON fills in the interface names that Text prints.
func (x Conn) MarshalJSON() ([]byte, error) {
	type plain Conn
	x.OutsideInterface, x.InsideInterface = orWord(x.OutsideInterface, "outside"), orWord(x.InsideInterface, "inside")
	return json.Marshal(plain(x))
}

func orWord(s, word string) string {
	if s == "" {
		return word
	}
	return Clean(s)
}

// Text gives the layout of `show crypto ca certificates`; identities first as on an ASA.
func (c Certificates) Text() string {
	p := new(page)
	for _, ca := range []bool{false, true} {
		for _, x := range c.Certificates {
			if x.CA == ca {
				x.print(p)
			}
		}
	}
	return p.String()
}

func (x Certificate) print(p *page) {
	title := "Certificate"
	if x.CA {
		title = "CA Certificate"
	}
	p.line(0, "%s", title)
	p.line(2, "Status: %s", x.status())
	if x.NotAfter.IsZero() && x.KeyType == "" { // nothing could be read
		p.line(2, "Associated Trustpoints: %s", Clean(x.Trustpoint))
		p.line(0, "")
		return
	}
	p.field(2, "Certificate Serial Number", x.SerialNumber)
	p.line(2, "Certificate Usage: %s", orWord(x.Usage, "General Purpose"))
	p.line(2, "Public Key Type: %s (%d bits)", Clean(x.KeyType), x.KeyBits)
	p.field(2, "Signature Algorithm", x.Signature)
	if !x.NotAfter.IsZero() {
		p.line(2, "Issuer Name:")
		p.line(4, "%s", Clean(x.Issuer))
	}
	p.line(2, "Subject Name:")
	p.line(4, "%s", Clean(x.Subject))
	p.field(2, "Names", strings.Join(x.Names, ", "))
	if !x.NotAfter.IsZero() {
		p.line(2, "Validity Date:")
		p.line(4, "start date: %s", asaTime(x.NotBefore))
		p.line(4, "end   date: %s", asaTime(x.NotAfter))
		p.line(2, "Days left: %d", x.DaysLeft)
	}
	p.field(2, "SHA256 Fingerprint", x.Fingerprint)
	p.line(2, "Associated Trustpoints: %s", Clean(x.Trustpoint))
	p.line(0, "")
}

func (x Certificate) status() string {
	switch {
	case x.Status != "":
		return Clean(x.Status)
	case x.DaysLeft < 0:
		return "Expired"
	default:
		return "Available"
	}
}

// MarshalJSON fills in the status and usage that Text prints.
func (x Certificate) MarshalJSON() ([]byte, error) {
	type plain Certificate
	x.Status, x.Usage = x.status(), orWord(x.Usage, "General Purpose")
	if x.NotAfter.IsZero() {
		return json.Marshal(struct {
			plain
			NotBefore *time.Time `json:"start_date,omitempty"`
			NotAfter  *time.Time `json:"end_date,omitempty"`
			DaysLeft  *int       `json:"days_left,omitempty"`
		}{plain: plain(x)})
	}
	return json.Marshal(plain(x))
}

// Text gives the layout of `show version`.
func (v Version) Text() string {
	p := new(page)
	p.line(0, "imeproxy Version %s", orWord(v.Version, "unknown"))
	p.field(0, "Commit", v.Commit)
	p.field(0, "Go version", v.GoVersion)
	p.field(0, "Kernel", v.Kernel)
	p.field(0, "Configuration file", v.Config)
	if v.Goroutines > 0 {
		p.line(0, "Goroutines: %d", v.Goroutines)
	}
	p.line(0, "")
	p.line(0, "%s up %s", orWord(v.Hostname, "imeproxy"), v.Up)
	return p.String()
}

// Text gives the configuration, ended by a line feed.
func (r RunningConfig) Text() string { return ended(r.Config) }

// Text gives the configuration, ended by a line feed.
func (r StartupConfig) Text() string { return ended(r.Config) }

func ended(text string) string {
	if text == "" || strings.HasSuffix(text, "\n") {
		return text
	}
	return text + "\n"
}

// Text gives the time in UTC, to the millisecond.
func (c Clock) Text() string { return c.Now.UTC().Format("15:04:05.000 UTC Mon Jan 2 2006") + "\n" }

// Text gives the line of `clear conn all`.
func (c Cleared) Text() string { return fmt.Sprintf("%d connection(s) deleted.\n", c.Connections) }

// Text gives the health list, worst first, or one line that says that nothing is wrong.
func (h HealthList) Text() string {
	p := new(page)
	if len(h.Problems) == 0 {
		p.line(0, "No problems")
	}
	for _, x := range h.Problems {
		p.line(0, "%s: %s%s", Clean(string(x.Severity)), Clean(x.Code), Clean(prefixed(" ", x.Object)))
		p.line(2, "Since: %s", asaTime(x.Since))
		p.field(2, "Impact", x.Impact)
		p.field(2, "What to do", x.WhatToDo)
	}
	if h.NotListed > 0 {
		p.line(0, "Not listed: %d", h.NotListed)
	}
	return p.String()
}

func prefixed(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}

// Text is empty.
func (Done) Text() string { return "" }

// MarshalJSON gives {"done": true}.
func (Done) MarshalJSON() ([]byte, error) { return []byte(`{"done":true}`), nil }
