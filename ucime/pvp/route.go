package pvp

import (
	"net/netip"
	"strings"
)

// wireRoute wants a SIP or SIPS URI of printable characters that leads to another host; whoever uses it parses it.
func wireRoute(r string) bool {
	if len(r) > maxRoute || strings.ContainsFunc(r, func(c rune) bool { return c < 0x21 || c > 0x7e }) {
		return false
	}
	rest, sip := strings.CutPrefix(r, "sip:")
	if !sip {
		rest, sip = strings.CutPrefix(r, "sips:")
	}
	return sip && rest != "" && elsewhere(routeHost(rest))
}

// routeHost is the host of a URI without its scheme: behind the user part, without port, parameters and headers.
func routeHost(rest string) string {
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		rest = rest[i+1:]
	}
	if in, ok := strings.CutPrefix(rest, "["); ok {
		in, _, _ = strings.Cut(in, "]")
		return in
	}
	if i := strings.IndexAny(rest, ":;?"); i >= 0 {
		rest = rest[:i]
	}
	return rest
}

// elsewhere refuses hosts that are the reader's own, or on its own link, whoever reads: a peer that has proven a call must not be given others' calls to place there.
func elsewhere(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return false
	}
	a, err := netip.ParseAddr(host)
	if err != nil {
		return true
	}
	a = a.Unmap()
	return !a.IsLoopback() && !a.IsUnspecified() && !a.IsMulticast() && !a.IsLinkLocalUnicast() && (a.Is6() || a.As4()[0] != 0 && a.As4()[0] < 240)
}
