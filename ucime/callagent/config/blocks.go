package config

import (
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

func defaults() *Config {
	return &Config{
		StateDir: "/var/lib/imeproxy-callagent", Control: "/run/imeproxy-callagent.sock", VCRQueue: 10000, MaximumCalls: 5000,
		Media:          Media{Low: 40000, High: 40999},
		EnrolledGroups: make(map[string]*EnrolledGroup), TrustGroups: make(map[string]*TrustGroup),
		ExclusionGroups: make(map[string]*ExclusionGroup), Transformations: make(map[string]*Transformation),
		E164: make(map[string]*E164Transformation), Profiles: make(map[string]*FallbackProfile), Firewalls: make(map[string]*Firewall), Servers: make(map[string]*Server),
		Fallback: FallbackFeature{Enable: true, Sensitivity: Nominal, Digits: 4, CollectionTimer: 3 * time.Second, AnswerTimer: 3 * time.Second},
		Feature: Feature{
			ConnectionTimer: 2 * time.Second, ProgressTimer: 8 * time.Second, SessionTimer: 30 * time.Minute, FirewallConnectionTimer: 2 * time.Second, FirewallMappingTimer: 2 * time.Second,
			FirewallIdleTimer: 10 * time.Minute, FailedCallThreshold: 50, FallbackThreshold: 50, QualityInterval: 2 * time.Minute, OutboundCalls: true,
		},
	}
}

type settings = map[string]setting

var blocks map[string]block

func init() { // the parser refers to the table, and the table to the parser
	blocks = map[string]block{
		"state-directory":     one("state-directory DIR", func(p *parser, t token) { p.cfg.StateDir = p.path(t) }),
		"control":             one("control SOCKET", func(p *parser, t token) { p.cfg.Control = p.path(t) }),
		"vcr-queue":           one("vcr-queue 1-1000000", func(p *parser, t token) { p.cfg.VCRQueue = p.number(t, 1, 1000000) }),
		"maximum-calls":       one("maximum-calls 1-50000", func(p *parser, t token) { p.cfg.MaximumCalls = p.number(t, 1, 50000) }),
		"metrics":             {usage: "metrics ADDRESS port N", settings: metrics},
		"media":               {usage: "media ADDRESS [ports LOW HIGH]", settings: media},
		"pbx":                 {usage: "pbx NAME", named: true, settings: pbx, end: trunkEnd},
		"pstn-trunk":          {usage: "pstn-trunk NAME", named: true, settings: pstnTrunk, end: trunkEnd},
		"ime-trunk":           {usage: "ime-trunk NAME", named: true, settings: imeTrunk, end: imeEnd},
		"service":             {usage: "service NAME", named: true, settings: service, end: serviceEnd},
		"enrolled-group":      {usage: "enrolled-group NAME", named: true, settings: enrolledGroup},
		"exclusion-group":     {usage: "exclusion-group NAME", named: true, settings: exclusionGroup},
		"trust-group":         {usage: "trust-group NAME trusted|untrusted", named: true, settings: trustGroup},
		"transformation":      {usage: "transformation NAME", named: true, settings: transformation},
		"e164-transformation": {usage: "e164-transformation NAME", named: true, settings: e164Transformation},
		"ime-server":          {usage: "ime-server NAME", named: true, settings: imeServer, end: imeServerEnd},
		"firewall":            {usage: "firewall NAME", named: true, settings: firewall, end: firewallEnd},
		"fallback-profile":    {usage: "fallback-profile NAME", named: true, settings: fallbackProfile, end: profileEnd},
		"fallback-feature":    {usage: "fallback-feature", settings: fallbackFeature},
		"feature":             {usage: "feature", settings: feature},
	}
}

// one is a block that is one line with one argument.
func one(usage string, set func(p *parser, t token)) block {
	return block{usage: usage, settings: func(p *parser, head []token) settings {
		if len(head) != 2 {
			p.fail(head[0], "want %s", usage)
		} else {
			set(p, head[1])
		}
		return settings{}
	}}
}

func (p *parser) path(t token) string {
	if !filepath.IsAbs(t.text) {
		p.fail(t, "%q: want an absolute path", t.text)
	}
	return filepath.Clean(t.text)
}

// bare demands that a head has nothing after its first n words.
func (p *parser) bare(head []token, n int) {
	if len(head) > n {
		p.fail(head[n], "nothing may follow here")
	}
}

func metrics(p *parser, head []token) settings {
	if len(head) != 4 {
		p.fail(head[0], "want metrics ADDRESS port N")
		return settings{}
	}
	p.cfg.Metrics = p.addrPort(head[1:], 0).String()
	return settings{}
}

func media(p *parser, head []token) settings {
	switch {
	case len(head) == 5 && head[2].text == "ports":
		p.cfg.Media.Low, p.cfg.Media.High = p.number(head[3], 1024, 65534), p.number(head[4], 1024, 65535)
		if p.cfg.Media.High <= p.cfg.Media.Low {
			p.fail(head[4], "the range ends before it begins")
		}
	case len(head) != 2:
		p.fail(head[0], "want media ADDRESS [ports LOW HIGH]")
		return settings{}
	}
	p.cfg.Media.Addr = p.address(head[1])
	return settings{}
}

func (p *parser) trunk(head []token, t *Trunk) settings {
	p.bare(head, 2)
	t.Name = p.name(head[1], 50)
	return settings{
		"listen": {"listen udp|tcp ADDRESS [port N]", 2, 4, true, func(p *parser, a []token) {
			l := p.listener(a, "udp", "tcp")
			if slices.ContainsFunc(t.Listen, func(o Listener) bool { return o.Transport == l.Transport }) {
				p.fail(a[0], "a trunk listens once a transport")
			}
			t.Listen = append(t.Listen, l)
		}},
		"peer": {"peer udp|tcp ADDRESS [port N]", 2, 4, false, func(p *parser, a []token) { t.Peer = p.listener(a, "udp", "tcp") }},
	}
}

func pbx(p *parser, head []token) settings {
	if p.cfg.PBX != nil {
		p.fail(head[0], "there is a pbx already")
	}
	p.cfg.PBX = new(Trunk)
	return p.trunk(head, p.cfg.PBX)
}

func pstnTrunk(p *parser, head []token) settings {
	t := new(Trunk)
	p.cfg.PSTN = append(p.cfg.PSTN, t)
	s := p.trunk(head, t)
	s["call-rate"] = setting{"call-rate 1-1000", 1, 1, false, func(p *parser, a []token) { t.CallRate = p.number(a[0], 1, 1000) }}
	s["e164-transformation"] = setting{"e164-transformation NAME", 1, 1, false, func(p *parser, a []token) {
		t.Transformation = ref(p, a[0], "e164-transformation", p.cfg.E164)
	}}
	s["fallback-called"] = setting{"fallback-called TRANSFORMATION", 1, 1, false, func(p *parser, a []token) {
		t.FallbackCalled = ref(p, a[0], "transformation", p.cfg.Transformations)
	}}
	return s
}

func trunkEnd(p *parser, head []token) {
	t := p.cfg.PBX
	if head[0].text == "pstn-trunk" {
		t = p.cfg.PSTN[len(p.cfg.PSTN)-1]
	}
	if t.Peer.Transport == "" {
		p.fail(head[0], "%s has no peer", t.Name)
		return
	}
	if !slices.ContainsFunc(t.Listen, func(l Listener) bool { return l.Transport == t.Peer.Transport }) {
		p.fail(head[0], "%s does not listen by %s, the transport of its peer", t.Name, t.Peer.Transport)
	}
}

func imeTrunk(p *parser, head []token) settings {
	p.bare(head, 2)
	if p.cfg.IME != nil {
		p.fail(head[0], "there is an ime-trunk already")
	}
	t := &IMETrunk{Name: p.name(head[1], 50)}
	p.cfg.IME = t
	return settings{
		"listen":         {"listen tcp ADDRESS [port N]", 2, 4, false, func(p *parser, a []token) { t.Listen = p.listener(a, "tcp") }},
		"inbound-called": {"inbound-called TRANSFORMATION", 1, 1, false, func(p *parser, a []token) { t.InboundCalled = ref(p, a[0], "transformation", p.cfg.Transformations) }},
		"inbound-caller": {"inbound-caller TRANSFORMATION", 1, 1, false, func(p *parser, a []token) { t.InboundCaller = ref(p, a[0], "transformation", p.cfg.Transformations) }},
	}
}

func imeEnd(p *parser, head []token) {
	if p.cfg.IME.Listen.Transport == "" {
		p.fail(head[0], "%s does not listen", p.cfg.IME.Name)
	}
}

func description(to *string) setting {
	return setting{"description TEXT", 1, 100, false, func(p *parser, a []token) { *to = p.text(a) }}
}

func service(p *parser, head []token) settings {
	p.bare(head, 2)
	if p.cfg.Service != nil {
		p.fail(head[0], "there is a service already")
	}
	s := &Service{Name: p.name(head[1], 50)}
	p.cfg.Service = s
	return settings{
		"description":     description(&s.Description),
		"domain":          {"domain NAME", 1, 1, false, func(p *parser, a []token) { s.Domain = p.domain(a[0]) }},
		"trust-group":     {"trust-group NAME", 1, 1, false, func(p *parser, a []token) { s.TrustGroup = ref(p, a[0], "trust-group", p.cfg.TrustGroups) }},
		"exclusion-group": {"exclusion-group NAME", 1, 1, false, func(p *parser, a []token) { s.ExclusionGroup = ref(p, a[0], "exclusion-group", p.cfg.ExclusionGroups) }},
		"firewall":        {"firewall NAME", 1, 1, false, func(p *parser, a []token) { s.Firewall = ref(p, a[0], "firewall", p.cfg.Firewalls) }},
		"enrolled-group": {"enrolled-group NAME", 1, 1, true, func(p *parser, a []token) {
			s.EnrolledGroups = append(s.EnrolledGroups, ref(p, a[0], "enrolled-group", p.cfg.EnrolledGroups))
		}},
		"external-address": {"external-address HOST [port N]", 1, 3, true, func(p *parser, a []token) {
			e := ExternalAddress{a[0].text, 5060}
			if _, err := netip.ParseAddr(a[0].text); err != nil {
				e.Host = p.domain(a[0])
			}
			if len(a) > 1 {
				e.Port = p.port(a[1:])
			}
			s.External = append(s.External, e)
		}},
		"primary-server":   {"primary-server NAME", 1, 1, false, func(p *parser, a []token) { s.Primary = ref(p, a[0], "ime-server", p.cfg.Servers) }},
		"secondary-server": {"secondary-server NAME", 1, 1, false, func(p *parser, a []token) { s.Secondary = ref(p, a[0], "ime-server", p.cfg.Servers) }},
		"activated":        {"activated", 0, 0, false, func(*parser, []token) { s.Activated = true }},
	}
}

func serviceEnd(p *parser, head []token) {
	if p.cfg.Service.Domain == "" {
		p.fail(head[0], "service %s has no domain", p.cfg.Service.Name)
	}
	serversOf(p, head)
}

func enrolledGroup(p *parser, head []token) settings {
	p.bare(head, 2)
	g := &EnrolledGroup{Name: p.name(head[1], 32)}
	p.cfg.EnrolledGroups[g.Name] = g
	return settings{
		"description":              description(&g.Description),
		"fallback-profile":         {"fallback-profile NAME", 1, 1, false, func(p *parser, a []token) { g.FallbackProfile = ref(p, a[0], "fallback-profile", p.cfg.Profiles) }},
		"all-patterns-are-aliases": {"all-patterns-are-aliases", 0, 0, false, func(p *parser, _ []token) { g.Aliases = true }},
		"pattern": {"pattern +DIGITS with up to 3 X at the end", 1, 1, true, func(p *parser, a []token) {
			pattern := strings.ToUpper(a[0].text)
			d, plus := strings.CutPrefix(pattern, "+")
			fixed := strings.TrimRight(d, "X")
			if !plus || !digits(fixed) || len(d) > 15 || len(d)-len(fixed) > 3 {
				p.fail(a[0], "%q: want + and up to 15 digits, of which the last three may be X", a[0].text)
			}
			p.refs = append(p.refs, func() {
				if g.Aliases && len(d) != len(fixed) {
					p.fail(a[0], "%q: aliases are exact numbers", a[0].text)
				}
			})
			g.Patterns = append(g.Patterns, pattern)
		}},
	}
}

func exclusionGroup(p *parser, head []token) settings {
	p.bare(head, 2)
	g := &ExclusionGroup{Name: p.name(head[1], 32)}
	p.cfg.ExclusionGroups[g.Name] = g
	return settings{
		"description": description(&g.Description),
		"number":      {"number +DIGITS", 1, 1, true, func(p *parser, a []token) { g.Numbers = append(g.Numbers, p.e164(a[0])) }},
	}
}

func trustGroup(p *parser, head []token) settings {
	g := &TrustGroup{Name: p.name(head[1], 32)}
	switch {
	case len(head) == 3 && head[2].text == "trusted":
		g.Trusted = true
	case len(head) != 3 || head[2].text != "untrusted":
		p.fail(head[len(head)-1], "want trust-group NAME trusted|untrusted")
	}
	p.cfg.TrustGroups[g.Name] = g
	return settings{
		"description": description(&g.Description),
		"domain":      {"domain NAME", 1, 1, true, func(p *parser, a []token) { g.Domains = append(g.Domains, p.domain(a[0])) }},
		"prefix": {"prefix +DIGITS[!]", 1, 1, true, func(p *parser, a []token) {
			d, plus := strings.CutPrefix(strings.TrimSuffix(a[0].text, "!"), "+")
			if !plus || !digits(d) || len(a[0].text) > 16 {
				p.fail(a[0], "%q: want + and up to 15 digits, or up to 14 and !", a[0].text)
			}
			g.Prefixes = append(g.Prefixes, a[0].text)
		}},
	}
}

func transformation(p *parser, head []token) settings {
	p.bare(head, 2)
	t := &Transformation{Name: p.name(head[1], 50)}
	p.cfg.Transformations[t.Name] = t
	return settings{
		"match": {"match PATTERN [strip N] [prefix PREFIX]", 1, 5, true, func(p *parser, a []token) {
			r := Rule{Pattern: strings.ToUpper(a[0].text)}
			if strings.Trim(strings.TrimSuffix(strings.TrimPrefix(r.Pattern, "+"), "!"), "0123456789X*#") != "" || len(r.Pattern) > 32 {
				p.fail(a[0], "%q: a pattern has + at the beginning, digits, *, # and X for any digit, and ! at the end for one or more digits", a[0].text)
			}
			for rest := a[1:]; len(rest) > 0; rest = rest[2:] {
				switch {
				case len(rest) < 2:
					p.fail(rest[0], "want match PATTERN [strip N] [prefix PREFIX]")
					return
				case rest[0].text == "strip":
					r.Strip = p.number(rest[1], 0, 24)
				case rest[0].text == "prefix":
					r.Prefix = rest[1].text
					if len(r.Prefix) > 8 || strings.Trim(r.Prefix, "0123456789+*#") != "" {
						p.fail(rest[1], "%q: a prefix has at most eight of the characters 0-9, +, * and #", r.Prefix)
					}
				default:
					p.fail(rest[0], "%q: want strip or prefix", rest[0].text)
				}
			}
			t.Rules = append(t.Rules, r)
		}},
	}
}

func e164Transformation(p *parser, head []token) settings {
	p.bare(head, 2)
	t := &E164Transformation{Name: p.name(head[1], 50)}
	p.cfg.E164[t.Name] = t
	out := settings{}
	for word, to := range map[string]*string{
		"outgoing-calling": &t.OutgoingCalling, "outgoing-called": &t.OutgoingCalled,
		"incoming-calling": &t.IncomingCalling, "incoming-called": &t.IncomingCalled,
	} {
		out[word] = setting{word + " TRANSFORMATION", 1, 1, false, func(p *parser, a []token) {
			*to = ref(p, a[0], "transformation", p.cfg.Transformations)
		}}
	}
	return out
}

func firewall(p *parser, head []token) settings {
	p.bare(head, 2)
	f := &Firewall{Name: p.name(head[1], 50)}
	p.cfg.Firewalls[f.Name] = f
	return settings{
		"description": description(&f.Description),
		"address":     {"address ADDRESS [port N]", 1, 3, false, func(p *parser, a []token) { f.Addr = p.addrPort(a, 8060) }},
	}
}

func firewallEnd(p *parser, head []token) {
	if f := p.cfg.Firewalls[head[1].text]; !f.Addr.IsValid() {
		p.fail(head[0], "firewall %s has no address", f.Name)
	}
}

func fallbackProfile(p *parser, head []token) settings {
	p.bare(head, 2)
	f := &FallbackProfile{Name: p.name(head[1], 32), CallerIDDigits: 5, Sensitivity: -1}
	p.cfg.Profiles[f.Name] = f
	return settings{
		"description":       description(&f.Description),
		"advertised-number": {"advertised-number +DIGITS", 1, 1, false, func(p *parser, a []token) { f.AdvertisedNumber = p.e164(a[0]) }},
		"directory-number": {"directory-number DIGITS", 1, 1, false, func(p *parser, a []token) {
			if f.DirectoryNumber = a[0].text; !digits(strings.TrimPrefix(f.DirectoryNumber, "+")) {
				p.fail(a[0], "%q: want digits", a[0].text)
			}
		}},
		"sensitivity":      {"sensitivity LEVEL", 1, 1, false, func(p *parser, a []token) { f.Sensitivity = p.sensitivity(a[0]) }},
		"answer-timer":     {"answer-timer 1-10", 1, 1, false, func(p *parser, a []token) { f.AnswerTimer = p.seconds(a[0], 1, 10) }},
		"caller-id-digits": {"caller-id-digits 1-15", 1, 1, false, func(p *parser, a []token) { f.CallerIDDigits = p.number(a[0], 1, 15) }},
	}
}

func profileEnd(p *parser, head []token) {
	if f := p.cfg.Profiles[head[1].text]; f.AdvertisedNumber == "" {
		p.fail(head[0], "fallback-profile %s has no advertised-number", f.Name)
	}
}

func fallbackFeature(p *parser, head []token) settings {
	p.bare(head, 1)
	f := &p.cfg.Fallback
	return settings{
		"enable":                {"enable true|false", 1, 1, false, func(p *parser, a []token) { f.Enable = p.boolean(a[0]) }},
		"sensitivity":           {"sensitivity LEVEL", 1, 1, false, func(p *parser, a []token) { f.Sensitivity = p.sensitivity(a[0]) }},
		"dtmf-digits":           {"dtmf-digits 4-20", 1, 1, false, func(p *parser, a []token) { f.Digits = p.number(a[0], 4, 20) }},
		"dtmf-collection-timer": {"dtmf-collection-timer 1-10", 1, 1, false, func(p *parser, a []token) { f.CollectionTimer = p.seconds(a[0], 1, 10) }},
		"answer-timer":          {"answer-timer 1-10", 1, 1, false, func(p *parser, a []token) { f.AnswerTimer = p.seconds(a[0], 1, 10) }},
	}
}

func feature(p *parser, head []token) settings {
	p.bare(head, 1)
	f := &p.cfg.Feature
	return settings{
		"connection-timer": {"connection-timer 1-5", 1, 1, false, func(p *parser, a []token) { f.ConnectionTimer = p.seconds(a[0], 1, 5) }},
		"progress-timer":   {"progress-timer 2-60", 1, 1, false, func(p *parser, a []token) { f.ProgressTimer = p.seconds(a[0], 2, 60) }},
		"session-timer": {"session-timer off|90-86400", 1, 1, false, func(p *parser, a []token) {
			if f.SessionTimer = 0; a[0].text != "off" {
				f.SessionTimer = p.seconds(a[0], 90, 86400)
			}
		}},
		"firewall-connection-timer": {"firewall-connection-timer 1-5", 1, 1, false, func(p *parser, a []token) { f.FirewallConnectionTimer = p.seconds(a[0], 1, 5) }},
		"firewall-mapping-timer":    {"firewall-mapping-timer 1-5", 1, 1, false, func(p *parser, a []token) { f.FirewallMappingTimer = p.seconds(a[0], 1, 5) }},
		"firewall-idle-timer":       {"firewall-idle-timer 5-60", 1, 1, false, func(p *parser, a []token) { f.FirewallIdleTimer = 60 * p.seconds(a[0], 5, 60) }},
		"failed-call-threshold":     {"failed-call-threshold 10-100", 1, 1, false, func(p *parser, a []token) { f.FailedCallThreshold = p.number(a[0], 10, 100) }},
		"fallback-threshold":        {"fallback-threshold 10-100", 1, 1, false, func(p *parser, a []token) { f.FallbackThreshold = p.number(a[0], 10, 100) }},
		"quality-interval":          {"quality-interval 30-1800", 1, 1, false, func(p *parser, a []token) { f.QualityInterval = p.seconds(a[0], 30, 1800) }},
		"outbound-calls":            {"outbound-calls true|false", 1, 1, false, func(p *parser, a []token) { f.OutboundCalls = p.boolean(a[0]) }},
		"intradomain":               {"intradomain true|false", 1, 1, false, func(p *parser, a []token) { f.Intradomain = p.boolean(a[0]) }},
	}
}

// complete fills what follows from the rest, and demands what must be there.
func (p *parser) complete() {
	c := p.cfg
	at := token{line: 1, col: 1}
	for what, there := range map[string]bool{"pbx": c.PBX != nil, "pstn-trunk": len(c.PSTN) > 0, "ime-trunk": c.IME != nil, "service": c.Service != nil} {
		if !there {
			p.fail(at, "there is no %s", what)
		}
	}
	if len(p.errs) > 0 {
		slices.SortFunc(p.errs, func(a, b Error) int { return strings.Compare(a.Message, b.Message) })
		return
	}
	if !c.Media.Addr.IsValid() {
		c.Media.Addr = c.PSTN[0].Listen[0].Addr.Addr()
	}
	for _, f := range c.Profiles {
		if f.Sensitivity < 0 {
			f.Sensitivity = c.Fallback.Sensitivity
		}
		f.AnswerTimer = max(f.AnswerTimer, c.Fallback.AnswerTimer) // the larger of the two holds (guide table 17)
	}
	seen := make(map[Listener]string)
	for _, t := range append([]*Trunk{c.PBX}, c.PSTN...) {
		for _, l := range t.Listen {
			if other, twice := seen[l]; twice {
				p.fail(at, "%s and %s listen at the same %s address %s", other, t.Name, l.Transport, l.Addr)
			}
			seen[l] = t.Name
		}
	}
	if other, twice := seen[c.IME.Listen]; twice {
		p.fail(at, "%s and %s listen at the same tcp address %s", other, c.IME.Name, c.IME.Listen.Addr)
	}
}
