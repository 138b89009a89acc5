package proxy

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"imeproxy/proxy/observe"
	"imeproxy/tlsproxy"
)

// expiryEvery is how often the dates of certificates are looked at; a certificate that is replaced leaves the health list by then.
const expiryEvery = time.Minute

// expirySteps are the days before the end of a certificate at which the log says so.
var expirySteps = []int{30, 14, 7, 1}

// expiry watches the dates of the certificates. It is the sweeping goroutine's own.
type expiry struct {
	next   time.Time
	raised map[[2]string]bool // health problems of its own, by code and object
	logged map[string]int     // the last step that was logged, by certificate
	seen   map[string]bool    // the certificates that were there, by trustpoint, kind and fingerprint; nil: nobody has looked
}

// sweepCertificates puts certificates that end soon or cannot be used on the health list.
func (a *Appliance) sweepCertificates(now time.Time) {
	e := &a.expiry
	if !a.reloaded.CompareAndSwap(true, false) && now.Before(e.next) {
		return
	}
	e.next = now.Add(expiryEvery)
	before := e.raised
	e.raised = make(map[[2]string]bool)
	raise := func(p observe.Problem) {
		a.health.Raise(p)
		e.raised[[2]string{p.Code, p.Object}] = true
	}
	if e.logged == nil {
		e.logged = make(map[string]int)
	}
	p := a.plan.Load()
	list := slices.DeleteFunc(a.store.Certificates(), func(c tlsproxy.CertificateInfo) bool { return c.Kind == "request" }) // nobody presents or trusts one
	used := make(map[string]bool)
	for _, name := range p.trustpoints() {
		used[name] = true
	}
	a.logReplaced(list)
	for _, c := range list {
		if c.Kind == "identity" && !used[c.Trustpoint] {
			continue // nothing is presented with it
		}
		if p, ok := certificateProblem(c, now); ok {
			raise(p)
			a.logExpiry(c, now)
		}
	}
	problems := trustProblems(p, list, now)
	if now.Sub(a.started) >= linkGrace {
		problems = append(problems, linkProblems(p, now, linkFlags)...)
	}
	for _, missing := range problems {
		raise(missing)
		if !before[[2]string{missing.Code, missing.Object}] {
			a.log.Warn("health problem", "problem", missing.Code, "object", missing.Object, "impact", missing.Impact, "what_to_do", missing.WhatToDo)
		}
	}
	for k := range before {
		if !e.raised[k] {
			a.health.Clear(k[0], k[1])
		}
	}
}

// logReplaced tells which certificates came and went since it looked last: handshakes use them without anybody having been asked.
func (a *Appliance) logReplaced(list []tlsproxy.CertificateInfo) {
	seen := make(map[string]bool)
	for _, c := range list {
		key := c.Trustpoint + " " + c.Kind + " " + c.Fingerprint
		seen[key] = true
		if a.expiry.seen != nil && !a.expiry.seen[key] {
			a.log.Info("another certificate is in use", "trustpoint", c.Trustpoint, "kind", c.Kind, "subject", c.Subject, "not_after", c.NotAfter.Format(time.RFC3339), "status", c.Status)
		}
	}
	for key := range a.expiry.seen {
		if !seen[key] {
			f := strings.Fields(key)
			a.log.Info("a certificate is in use no more", "trustpoint", f[0], "kind", f[1], "sha256", strings.Join(f[2:], ""))
		}
	}
	a.expiry.seen = seen
}

// trustProblems tells which trustpoints of the configuration hold nothing, whether no other enterprise is trusted at all, and whether calls come in
// that nobody verifies: the daemon starts as an authority's certificate may be brought later, but the operator should not have to find it out by refused calls.
func trustProblems(p *plan, list []tlsproxy.CertificateInfo, now time.Time) (out []observe.Problem) {
	const remedy = "bring the authority's certificate: `imeproxy crypto authenticate --trustpoint %s --pem FILE`"
	holds := make(map[string]bool)
	trusted := false
	for _, c := range list {
		holds[c.Trustpoint] = true
		trusted = trusted || c.Kind != "identity" && c.Kind != "intermediate" && c.Status == "available"
	}
	if p.proxying() && !trusted {
		out = append(out, observe.Problem{
			Code: "no_authority", Severity: observe.Critical, Since: now, Impact: "every call to and from other enterprises is refused: no authority is trusted, so that no certificate is good",
			WhatToDo: fmt.Sprintf(remedy, "NAME"),
		})
	}
	if p.UCIME != nil && !slices.ContainsFunc(p.classes, func(c *class) bool { return !c.outbound }) {
		out = append(out, observe.Problem{
			Code: "inbound_not_inspected", Severity: observe.Major, Since: now,
			Impact:   "no enabled policy inspects inbound calls: what the access list of the Internet's interface permits reaches the call agent without TLS and ticket",
			WhatToDo: "enable the policy map by service-policy, or add the class of inbound calls to it",
		})
	}
	for _, c := range list {
		if wanted := p.cfg.Trustpoint(c.Trustpoint); c.Kind == "identity" && wanted != nil && otherName(wanted.SubjectName, c.Subject) {
			out = append(out, observe.Problem{
				Code: "certificate_of_another_name", Object: c.Trustpoint, Severity: observe.Warning, Since: now,
				Impact:   fmt.Sprintf("the certificate is of %s, the configuration asks for %s: other enterprises take calls only from who the certificate names", c.Subject, wanted.SubjectName),
				WhatToDo: "request one of the right name by `imeproxy crypto enroll`, or correct subject-name",
			})
		}
	}
	for _, t := range p.cfg.Trustpoints {
		if !holds[t.Name] {
			out = append(out, observe.Problem{
				Code: "trustpoint_empty", Object: t.Name, Severity: observe.Warning, Since: now, Impact: "it holds no certificate: peers with certificates of its authority are refused",
				WhatToDo: fmt.Sprintf(remedy, t.Name) + ", or remove the trustpoint",
			})
		}
	}
	return out
}

// otherName tells whether a certificate has another common name than the configuration asks for. Authorities add and leave out other attributes.
func otherName(wanted, subject string) bool {
	cn := func(name string) string {
		for part := range strings.SplitSeq(name, ",") {
			if k, v, ok := strings.Cut(strings.TrimSpace(part), "="); ok && strings.EqualFold(k, "cn") {
				return strings.ToLower(v)
			}
		}
		return ""
	}
	return cn(wanted) != "" && cn(subject) != "" && cn(wanted) != cn(subject)
}

// certificateProblem tells what is wrong with a certificate now, or will be within 30 days.
func certificateProblem(c tlsproxy.CertificateInfo, now time.Time) (observe.Problem, bool) {
	p := observe.Problem{
		Object: c.Trustpoint, Since: now, Severity: observe.Warning, Code: "certificate_expiring",
		Impact: "from " + c.NotAfter.Format(time.RFC3339) + " on no TLS connection can be made", WhatToDo: "renew it: `imeproxy crypto enroll`, then `imeproxy crypto import`",
	}
	if c.Kind != "identity" {
		p.Object += " " + c.Subject
		p.Impact = "from " + c.NotAfter.Format(time.RFC3339) + " on peers with certificates of this authority are refused"
		p.WhatToDo = "authenticate the authority's next certificate: `imeproxy crypto authenticate`"
	}
	left := c.NotAfter.Sub(now)
	switch {
	case c.Status != "available":
		p.Code, p.Severity = "certificate_unusable", observe.Critical
		p.Impact = "it is not used: " + c.Status
		return p, true
	case left < 7*24*time.Hour:
		p.Severity = observe.Major
		return p, true
	}
	return p, left < time.Duration(expirySteps[0])*24*time.Hour
}

// logExpiry warns once at each step.
func (a *Appliance) logExpiry(c tlsproxy.CertificateInfo, now time.Time) {
	step := -1
	for _, days := range expirySteps {
		if c.NotAfter.Sub(now) < time.Duration(days)*24*time.Hour {
			step = days
		}
	}
	if c.Status != "available" {
		step = 0
	}
	key := c.Trustpoint + " " + c.Fingerprint
	if last, ok := a.expiry.logged[key]; ok && last == step {
		return
	}
	a.expiry.logged[key] = step
	a.log.Warn("certificate ends soon or cannot be used", "trustpoint", c.Trustpoint, "kind", c.Kind, "subject", c.Subject, "status", c.Status,
		"not_after", c.NotAfter.Format(time.RFC3339), "days_left", fmt.Sprint(int(c.NotAfter.Sub(now).Hours()/24)))
}
