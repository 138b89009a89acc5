package dialplan

import (
	"slices"
	"strings"

	"imeproxy/ucime/callagent/config"
	"imeproxy/ucime/learn"
)

// Plan is made of a configuration by New.
type Plan struct {
	cfg      *config.Config
	exact    map[string]*config.EnrolledGroup
	wild     map[string]*config.EnrolledGroup // patterns with X
	excluded map[string]bool
}

// New makes the plan of a configuration, which must not change any more.
func New(cfg *config.Config) *Plan {
	p := &Plan{cfg: cfg, exact: make(map[string]*config.EnrolledGroup), wild: make(map[string]*config.EnrolledGroup), excluded: make(map[string]bool)}
	for _, name := range cfg.Service.EnrolledGroups {
		g := cfg.EnrolledGroups[name]
		for _, pattern := range g.Patterns {
			to := p.exact
			if strings.HasSuffix(pattern, "X") {
				to = p.wild
			}
			if _, there := to[pattern]; !there { // the first group that names it has it
				to[pattern] = g
			}
		}
	}
	if g := cfg.ExclusionGroups[cfg.Service.ExclusionGroup]; g != nil {
		for _, n := range g.Numbers {
			p.excluded[n] = true
		}
	}
	return p
}

// Enrolled is the group of an own number that uses the service. There is none where the service is not activated.
func (p *Plan) Enrolled(n learn.Number) (*config.EnrolledGroup, bool) {
	s := string(n)
	if !p.cfg.Service.Activated || !n.Valid() || p.excluded[s] {
		return nil, false
	}
	if g, ok := p.exact[s]; ok {
		return g, true
	}
	for x := 1; x <= 3 && x < len(s)-1; x++ {
		if g, ok := p.wild[s[:len(s)-x]+"XXX"[:x]]; ok {
			return g, true
		}
	}
	return nil, false
}

// Profile is the fallback profile of an own number; nil: its calls do not fall back.
func (p *Plan) Profile(n learn.Number) *config.FallbackProfile {
	g, ok := p.Enrolled(n)
	if !ok || !p.cfg.Fallback.Enable {
		return nil
	}
	return p.cfg.Profiles[g.FallbackProfile]
}

// Sensitivity is what the proxy is told for a call of an own number.
func (p *Plan) Sensitivity(n learn.Number) config.Sensitivity {
	if f := p.Profile(n); f != nil {
		return f.Sensitivity
	}
	return config.Disabled
}

// Trusted reports whether calls may go to a number of a domain (guide lines 3040-3130).
func (p *Plan) Trusted(domain string, n learn.Number) bool {
	if !p.cfg.Feature.Intradomain && strings.EqualFold(domain, p.cfg.Service.Domain) {
		return false
	}
	g := p.cfg.TrustGroups[p.cfg.Service.TrustGroup]
	if g == nil {
		return true
	}
	named := slices.Contains(g.Domains, strings.ToLower(domain)) || slices.ContainsFunc(g.Prefixes, func(prefix string) bool {
		head, open := strings.CutSuffix(prefix, "!")
		return string(n) == prefix || open && strings.HasPrefix(string(n), head) && len(n) > len(head)
	})
	return named == g.Trusted
}

// Transform applies a transformation; "" applies none.
func (p *Plan) Transform(name, number string) string {
	t := p.cfg.Transformations[name]
	if t == nil {
		return number
	}
	for _, r := range t.Rules {
		if Matches(r.Pattern, number) {
			return r.Prefix + number[min(r.Strip, len(number)):]
		}
	}
	return number
}

// Matches compares a number with a pattern of digits, +, *, #, X for any digit and ! at the end for one or more digits.
func Matches(pattern, number string) bool {
	head, open := strings.CutSuffix(pattern, "!")
	if len(number) < len(head) || !open && len(number) > len(head) || open && len(number) == len(head) {
		return false
	}
	for i := range len(number) {
		digit := number[i] >= '0' && number[i] <= '9'
		switch {
		case i >= len(head) || head[i] == 'X':
			if !digit {
				return false
			}
		case number[i] != head[i]:
			return false
		}
	}
	return true
}

// Outgoing turns the numbers of a call to a PSTN trunk into +E.164; ok says that both are.
func (p *Plan) Outgoing(t *config.Trunk, caller, called string) (from, to learn.Number, ok bool) {
	if x := p.cfg.E164[t.Transformation]; x != nil {
		caller, called = p.Transform(x.OutgoingCalling, caller), p.Transform(x.OutgoingCalled, called)
	}
	return e164(caller, called)
}

// Incoming turns the numbers of a call from a PSTN trunk into +E.164; the caller may be unknown.
func (p *Plan) Incoming(t *config.Trunk, caller, called string) (from, to learn.Number, ok bool) {
	if x := p.cfg.E164[t.Transformation]; x != nil {
		caller, called = p.Transform(x.IncomingCalling, caller), p.Transform(x.IncomingCalled, called)
	}
	return e164(caller, called)
}

func e164(caller, called string) (from, to learn.Number, ok bool) {
	from, to = learn.Number(caller), learn.Number(called)
	if !from.Valid() {
		from = ""
	}
	return from, to, from != "" && to.Valid()
}
