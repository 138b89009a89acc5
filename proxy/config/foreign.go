package config

import (
	"slices"
	"strings"
	"sync"
)

// What is to be done about a line that this product has no command for, where it is more than removing it.
const (
	adviseInspect = "other protocols pass as the access lists say, without inspection"
	adviseLogins  = "logins are those of `username`, over `ssh`"
	adviseManage  = "it is reached by `ssh` and `imeproxy shell`"
	adviseSystem  = "that is a setting of the Linux system"
	adviseNAT     = "translation stands in the object: `object network NAME`, then `nat (inside,outside) static OBJECT`"
	adviseLogging = "there are `logging enable`, `logging host` and `logging trap`"
	adviseService = "write the ports into the access list, or `object-group service`"
	adviseMetrics = "metrics come over HTTP: `imeproxy run --metrics`"
)

// foreign are commands of an ASA that this product does not have, each by its first words, in lines with what there is instead. "*" stands for any
// word. They come from the index of the ASA's command reference (8.3 to 9.1); words that are a command of one of our modes must not stand alone.
var foreign = []struct{ commands, instead string }{
	{"aaa, aaa-server, password-policy, privilege, user-identity, quota, ldap, auth-prompt", adviseLogins},
	{"passwd, password", "logins are those of `username`; `enable password` guards privileged commands"},
	{"asdm, http, telnet, console, management-access, ctl-file, ctl-provider", adviseManage},
	{"snmp-server, snmp-map, snmp, mib", adviseMetrics},
	{"ntp, clock, dns, ddns, dhcpd, dhcprelay, dhcp-client, mtu, arp, ipv6, mac-address, mac-address-table, hpm, " +
		"speed, duplex, flowcontrol, channel-group, lacp, port-channel, vlan, management-only, jumbo-frame, name-server, ip verify, ip address dhcp", adviseSystem},
	{"nat * source, nat * * source, nat * after-auto, static, global, alias, nat-control, xlate", adviseNAT},
	{"names, name", "write the address itself, or an `object network`"},
	{"object object-group protocol, object-group icmp-type, icmp-object, protocol-object", adviseService},
	{"logging asdm, logging buffered, logging buffer-size, logging class, logging console, logging device-id, logging facility, logging history, logging list, " +
		"logging mail, logging message, logging monitor, logging permit-hostdown, logging queue, logging rate-limit, logging standby, logging timestamp, " +
		"logging from-address, logging recipient-address, logging flash-bufferwrap, logging ftp-server, logging debug-trace, logging emblem", adviseLogging},
	{"inspect ctiqbe, inspect dcerpc, inspect dns, inspect esmtp, inspect ftp, inspect gtp, inspect h323, inspect http, inspect icmp, inspect ils, inspect im, " +
		"inspect ip-options, inspect ipsec-pass-thru, inspect ipv6, inspect mgcp, inspect mmp, inspect netbios, inspect pptp, inspect radius-accounting, " +
		"inspect rsh, inspect rtsp, inspect scansafe, inspect skinny, inspect snmp, inspect sqlnet, inspect sunrpc, inspect tftp, inspect waas, inspect xdmcp, " +
		"match default-inspection-traffic, fixup, policy-map type inspect dns, policy-map type inspect esmtp, policy-map type inspect ftp, " +
		"policy-map type inspect h323, policy-map type inspect http, policy-map type inspect im, policy-map type inspect ip-options, " +
		"policy-map type inspect mgcp, policy-map type inspect netbios, policy-map type inspect skinny, class-map type inspect", adviseInspect},
	{"match any, match port, match dscp, match precedence, match rtp, match tunnel-group, match flow", "a class map here takes `match access-list`"},
	{
		"parameters, tcp-map, sip-map, h225-map, http-map, ftp-map, mgcp-map, gtp-map, regex, max-forwards-validation, strict-header-validation, " +
			"state-checking, rtp-conformance, software-version, uri-non-sip, traffic-non-sip, im, ip-address-privacy",
		"the checks of SIP are always on (docs/operation.md)",
	},
	{"ssl trust-point, ssl cert-authentication, ssl dh-group, ssl cipher", "certificates stand in `tls-proxy`, by trustpoint; versions in `ssl client-version` and `ssl server-version`"},
	{
		"crypto map, crypto dynamic-map, crypto ipsec, crypto isakmp, crypto ikev1, crypto ikev2, isakmp, ipsec-udp, webvpn, group-policy, tunnel-group, tunnel-group-map, " +
			"vpn-addr-assign, vpn-sessiondb, vpn-setup, vpn-tunnel-protocol, vpdn, vpnclient, anyconnect, ip local, dynamic-access-policy-record, dynamic-filter, l2tp, svc, zonelabs-integrity",
		"this product is no VPN gateway",
	},
	{"revocation-check, crl, ocsp", "a certificate is refused when its authority's trustpoint is removed"},
	{"phone-proxy, cifs, eject", "this product is for calls between enterprises alone"},
	{"failover, monitor-interface, cluster, ip address * * standby", "there is no pair of units: a second proxy stands by itself"},
	{"threat-detection basic-threat, threat-detection rate, threat-detection statistics", "there is `threat-detection scanning-threat shun`"},
	{"crypto ca trustpool, crypto ca server, crypto ca certificate, crypto ca crl, crypto engine, proxy-ldc-issuer, ip-address, serial-number, email, id-cert-issuer, id-usage, " +
		"match certificate, crypto key pubkey-chain, usage", ""},
	{"access-list * ethertype, access-list * webtype, access-list * standard", ""},
	{"arp-inspection, asp, auto-update, bgp, boot, bridge-group, call-home, client-update, command-alias, compression, " +
		"config-register, configuration, context, coredump, cts, dap, delay, dns-guard, eigrp, established, event, filter, fips, firewall, flow-export, flow-offload, " +
		"forward, fragment, ftp, gtp, icmp, igmp, imap4s, ip audit, jumbo, key, license, limit-resource, mac, mac-list, mail, mfib, mode, module, mount, mrib, mroute, " +
		"multicast-routing, object-group-search, object-group user, object-group security, ospf, pager, perfmon, pim, police, policy-list, policy-route, pop3s, prefix-list, " +
		"prf, priority, priority-queue, prompt, queue-limit, random-detect, redirect-fqdn, redundant-interface, member-interface, remote-access, resource, rip, route-map, router, " +
		"scansafe, service, set connection, shape, shun, sla, smtp-server, smtps, software, split-dns, sunrpc-server, sysopt, tcp-options, terminal-width, " +
		"tftp-server, time-range, periodic, absolute, timeout pat-xlate, track, traffic-forward, tx-ring-limit, url-block, url-cache, url-list, url-server, user-statistics, virtual, " +
		"vpn, vxlan, wccp, zone, csc, ips, cxsc, sfr, pppoe, rename", ""},
}

// typedOnly are commands of the shell that an operator may take for configuration.
const typedOnly = "show, copy, write, reload, ping, debug, undebug, configure, delete, dir, more, packet-tracer, traceroute, erase, disable, capture, clear, terminal, logout"

// phrase is the first words of a command.
type phrase struct {
	words   []string
	instead string
}

var phrases = sync.OnceValue(func() map[string][]phrase {
	all := map[string][]phrase{}
	for _, f := range foreign {
		for c := range strings.SplitSeq(f.commands, ", ") {
			words := strings.Fields(c)
			all[words[0]] = append(all[words[0]], phrase{words, f.instead})
		}
	}
	return all
})

// foreignHint says of a line that no mode has a command for that an ASA has one, and what there is instead; nothing of any other. The word of the
// given index is the one that did not fit.
func (p *parser) foreignHint(index int) string {
	words := p.words
	if strings.EqualFold(words[0].Text, "no") && len(words) > 1 {
		words, index = words[1:], index-1
	}
	text := make([]string, 0, 8)
	for _, w := range words[:min(len(words), cap(text))] {
		text = append(text, strings.ToLower(w.Text))
	}
	var best *phrase
	for _, ph := range phrases()[text[0]] {
		if len(ph.words) <= index || (best != nil && len(best.words) >= len(ph.words)) {
			continue
		}
		if begins(text, ph.words) {
			best = &ph
		}
	}
	switch {
	case best != nil:
		return "an ASA's command that this product does not have: " + p.removal(best.instead)
	case index != 0:
		return ""
	case text[0] == "asa" || strings.HasPrefix(text[0], "cryptochecksum:"):
		return "an ASA prints this around its configuration: " + p.removal("")
	case len(text[0]) > 1 && isTyped(text[0]):
		return "a command of the shell, not of a configuration: " + p.removal("")
	}
	return ""
}

// isTyped tells whether a word is, or abbreviates, a command of the shell.
func isTyped(word string) bool {
	return slices.ContainsFunc(strings.Split(typedOnly, ", "), func(c string) bool { return abbreviates(word, c) })
}

func begins(text, with []string) bool {
	if len(text) < len(with) {
		return false
	}
	for i, w := range with {
		if w != "*" && w != text[i] {
			return false
		}
	}
	return true
}

// removal says what to do with the line. Those that are indented under it are part of it and are passed over: as commands by themselves they
// would be mistaken for others.
func (p *parser) removal(instead string) string {
	what := "leave it out"
	if p.next < len(p.lines) {
		if under := indentOf(p.lines[p.next]); under > p.words[0].Col {
			p.under = p.words[0].Col
			what = "leave it out with the lines indented under it, which were not read"
		}
	}
	if instead != "" {
		what += "; " + instead
	}
	return what
}

// indentOf is the column at which a line begins; 0 where it says nothing.
func indentOf(line string) int {
	text := strings.TrimLeft(line, " \t")
	if text = strings.TrimSuffix(text, "\r"); text == "" || text[0] == '!' || text[0] == ':' {
		return 0
	}
	return len(line) - len(strings.TrimLeft(line, " \t")) + 1
}
