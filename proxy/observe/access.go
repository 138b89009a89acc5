package observe

import (
	"fmt"
	"strings"
)

// AccessLists is the answer to `show access-list`.
type AccessLists struct {
	Lists List[AccessList] `json:"access_lists"`
	Flows *AccessFlows     `json:"log_flows,omitempty"` // with all lists
}

// AccessFlows counts the flows that are followed for entries that say log.
type AccessFlows struct {
	Total         int `json:"total"`
	Denied        int `json:"denied"`
	DenyFlowMax   int `json:"deny_flow_max"`
	AlertInterval int `json:"alert_interval"` // seconds
	// Packets whose flows found no room.
	DeniedBeside    uint64 `json:"denied_packets_not_followed"`
	PermittedBeside uint64 `json:"permitted_packets_not_followed"`
}

// AccessList is one list in the order of its entries.
type AccessList struct {
	Name    string            `json:"name"`
	Use     List[string]      `json:"use"` // what asks it: access groups and classes
	Entries List[AccessEntry] `json:"entries"`
}

// AccessEntry is one entry with how many connections it has decided on.
type AccessEntry struct {
	Line   int    `json:"line"`
	Text   string `json:"text"`
	Hits   uint64 `json:"hits"`
	Remark bool   `json:"remark,omitempty"`
	Hash   string `json:"hash,omitempty"` // by which messages name it
}

// Text gives the lists in an ASA's layout.
func (a AccessLists) Text() string {
	var b strings.Builder
	if f := a.Flows; f != nil {
		fmt.Fprintf(&b, "access-list cached ACL log flows: total %d, denied %d (deny-flow-max %d)\n            alert-interval %d\n", f.Total, f.Denied, f.DenyFlowMax, f.AlertInterval)
		if f.DeniedBeside+f.PermittedBeside > 0 {
			fmt.Fprintf(&b, "            packets of flows not cached: denied %d, permitted %d\n", f.DeniedBeside, f.PermittedBeside)
		}
	}
	for _, l := range a.Lists {
		n := 0
		for _, e := range l.Entries {
			if !e.Remark {
				n++
			}
		}
		use := "not in use"
		if len(l.Use) > 0 {
			use = Clean(strings.Join(l.Use, ", "))
		}
		fmt.Fprintf(&b, "access-list %s; %d elements; %s\n", Clean(l.Name), n, use)
		for _, e := range l.Entries {
			fmt.Fprintf(&b, "access-list %s line %d %s", Clean(l.Name), e.Line, Clean(e.Text))
			if !e.Remark {
				fmt.Fprintf(&b, " (hitcnt=%d) %s", e.Hits, Clean(e.Hash))
			}
			b.WriteString("\n")
		}
	}
	return b.String()
}

// ServicePolicies is the answer to `show service-policy`.
type ServicePolicies struct {
	Policies List[ServicePolicy] `json:"policies"`
}

// ServicePolicy is one policy that is in force.
type ServicePolicy struct {
	Interface string             `json:"interface,omitempty"` // empty: on all of them
	Name      string             `json:"name"`
	Classes   List[ServiceClass] `json:"classes"`
}

// ServiceClass is one class that the proxy inspects.
type ServiceClass struct {
	Name        string `json:"name"`
	UCIME       string `json:"uc_ime"`
	TLSProxy    string `json:"tls_proxy"`
	Connections uint64 `json:"connections"` // that were taken
	Sessions    int    `json:"sessions"`    // that stand
}

// Text gives the policies in an ASA's layout.
func (s ServicePolicies) Text() string {
	if len(s.Policies) == 0 {
		return "No service policy is in force\n"
	}
	var b strings.Builder
	for _, p := range s.Policies {
		if p.Interface == "" {
			b.WriteString("Global policy:\n")
		} else {
			b.WriteString("Interface " + Clean(p.Interface) + ":\n")
		}
		b.WriteString("  Service-policy: " + Clean(p.Name) + "\n")
		for _, c := range p.Classes {
			fmt.Fprintf(&b, "    Class-map: %s\n      Inspect: sip uc-ime %s tls-proxy %s, connections %d, sessions %d\n", Clean(c.Name), Clean(c.UCIME), Clean(c.TLSProxy), c.Connections, c.Sessions)
		}
	}
	return b.String()
}

// TLSSessions is the answer to `show tls-proxy session`.
type TLSSessions struct {
	InUse    int              `json:"in_use"`
	MostUsed int              `json:"most_used"`
	Sessions List[TLSSession] `json:"sessions"`
}

// TLSSession is one session over TLS with the Internet.
type TLSSession struct {
	Proxy       string       `json:"proxy"`
	Outside     string       `json:"outside"`
	Inside      string       `json:"inside,omitempty"` // empty: not opened yet
	InsideTLS   bool         `json:"inside_tls"`
	PeerDomains List[string] `json:"peer_domains"`
	TLSVersion  string       `json:"tls_version"`
	CipherSuite string       `json:"cipher_suite"`
	Bytes       uint64       `json:"bytes"` // both ways, outside
	Idle        Seconds      `json:"idle"`
}

// Text gives a session two lines.
func (s TLSSessions) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d in use, %d most used\n", s.InUse, s.MostUsed)
	for _, x := range s.Sessions {
		inside := "not opened"
		if x.Inside != "" {
			inside = x.Inside
		}
		if x.InsideTLS {
			inside += " TLS"
		}
		fmt.Fprintf(&b, "outside %s inside %s proxy %s byte %d idle %s\n", Clean(x.Outside), Clean(inside), Clean(x.Proxy), x.Bytes, x.Idle)
		fmt.Fprintf(&b, "    %s %s peer %s\n", Clean(x.TLSVersion), Clean(x.CipherSuite), Clean(strings.Join(x.PeerDomains, " ")))
	}
	return b.String()
}

// SIPCalls is the answer to `show sip`.
type SIPCalls struct {
	Total int           `json:"total"`
	Calls List[SIPCall] `json:"calls"`
}

// SIPCall is one call, also one that only asks (OPTIONS, SUBSCRIBE).
type SIPCall struct {
	CallID    string  `json:"call_id"`
	State     string  `json:"state"`
	Direction string  `json:"direction"`
	From      string  `json:"from"`
	To        string  `json:"to"`
	Domain    string  `json:"domain"` // the other enterprise
	Idle      Seconds `json:"idle"`   // since the last message
}

// Text gives the calls in an ASA's layout.
func (s SIPCalls) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Total: %d\n", s.Total)
	for _, c := range s.Calls {
		fmt.Fprintf(&b, "call-id %s\n    state %s, idle %s\n    %s from %s to %s, %s\n", Clean(c.CallID), Clean(c.State), c.Idle, Clean(c.Direction), Clean(c.From), Clean(c.To), Clean(c.Domain))
	}
	return b.String()
}
