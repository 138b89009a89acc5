package learn

import "strings"

// TrustGroup holds the domains and number prefixes that a service trusts, or does not trust (guide lines 2948-3121). The nil
// group trusts all.
type TrustGroup struct {
	Name string
	// Trusted is a whitelist: only what an element names is trusted. Otherwise all is but what an element names.
	Trusted bool
	// Domains are names of enterprises, without dots at the ends; sub-domains are not meant. Prefixes are those of +E.164 numbers.
	Domains, Prefixes []string
}

// AllowsNumber says whether a call to or from the number may be learned, as far as the number alone tells: a whitelist with domains may still trust it.
func (g *TrustGroup) AllowsNumber(n Number) bool {
	switch {
	case g == nil:
		return true
	case g.Trusted:
		return len(g.Domains) > 0 || g.hasPrefix(n)
	}
	return !g.hasPrefix(n)
}

// Allows says whether the enterprise of a domain may have the number.
func (g *TrustGroup) Allows(domain string, n Number) bool {
	if g == nil {
		return true
	}
	return (g.hasDomain(domain) || g.hasPrefix(n)) == g.Trusted
}

func (g *TrustGroup) hasDomain(domain string) bool {
	for _, d := range g.Domains {
		if strings.EqualFold(d, domain) {
			return true
		}
	}
	return false
}

func (g *TrustGroup) hasPrefix(n Number) bool {
	for _, p := range g.Prefixes {
		if strings.HasPrefix(string(n), p) {
			return true
		}
	}
	return false
}
