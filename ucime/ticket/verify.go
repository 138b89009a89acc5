package ticket

import (
	"crypto/hmac"
	"math"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Skew is the difference between two clocks that verification forgives.
const Skew = 300 * time.Second

// Result is "ok" or the name of the counter that grows.
type Result string

// Results of a verification, in the order of the checks.
const (
	OK                Result = "ok"
	NotFound          Result = "Ticket not found"
	DecodeFailed      Result = "Ticket decode failed"
	EpochMismatch     Result = "Ticket epoch mismatch"
	IntegrityFailed   Result = "Ticket integrity check failed"
	TimestampInvalid  Result = "Ticket timestamp invalid"
	DIDMismatch       Result = "Ticket DID mismatch"
	DomainFailed      Result = "Ticket domain check failed"
	RouteDomainFailed Result = "Route domain name check failed"
)

// Results are the eight failures in the order of the checks, which is the order
// of the counters wherever they are shown. The slice is the caller's.
func Results() []Result {
	return []Result{
		NotFound, DecodeFailed, EpochMismatch, IntegrityFailed,
		TimestampInvalid, DIDMismatch, DomainFailed, RouteDomainFailed,
	}
}

// Label is the printed name of the counter.
func (r Result) Label() string { return string(r) }

// Verifier checks the tickets of inbound requests. It is not changed after it
// is made, so several goroutines may use one.
type Verifier struct {
	// Key is that of the only valid epoch.
	Key Key
	// OwnDomains are this enterprise's domains; a ticket that any of them
	// granted is good.
	OwnDomains []string
}

// Verify checks one request. headers are the values of all its
// X-Cisco-UC-IME-Ticket headers; called is the user part of its Request-URI;
// peerDomains are the SIP domain identities of the peer's certificate.
//
// The ticket is nil where it could not be read. With any result but OK it is a
// claim of the sender, fit for a log and for no decision.
func (v *Verifier) Verify(headers []string, called string, peerDomains []string, now time.Time) (Result, *Ticket) {
	if len(headers) == 0 {
		return NotFound, nil
	}
	if len(headers) > 1 {
		return DecodeFailed, nil
	}
	t, err := Decode(headers[0])
	if err != nil {
		return DecodeFailed, nil
	}
	return v.check(t, called, peerDomains, now), t
}

// check applies the checks in the order that docs/tickets.md fixes: what costs
// least and says most about a forger comes first.
func (v *Verifier) check(t *Ticket, called string, peerDomains []string, now time.Time) Result {
	if v.Key.epoch == 0 || t.Epoch != v.Key.epoch {
		return EpochMismatch
	}
	want := v.Key.integrity(t.Salt, t.signed)
	if !hmac.Equal(want[:], t.Integrity[:]) {
		return IntegrityFailed
	}
	if !t.validAt(now) {
		return TimestampInvalid
	}
	if !slices.Contains(t.Numbers, CalledNumber(called)) {
		return DIDMismatch
	}
	if !holds(peerDomains, t.GrantedToDomain) {
		return DomainFailed
	}
	if !holds(v.OwnDomains, t.GrantingDomain) {
		return RouteDomainFailed
	}
	return OK
}

// validAt compares without overflow: the fields have the full range of uint64.
func (t *Ticket) validAt(now time.Time) bool {
	const skew = uint64(Skew / time.Second)
	s := now.Unix()
	if s < 0 {
		return false
	}
	n := uint64(s)
	lateEnough := t.NotBefore <= skew || t.NotBefore-skew <= n
	earlyEnough := t.NotAfter > math.MaxUint64-skew || n <= t.NotAfter+skew
	return lateEnough && earlyEnough
}

// holds compares domains without case. A ticket's domain has no asterisk, so a
// wildcard of a certificate never matches.
func holds(domains []string, domain string) bool {
	return slices.ContainsFunc(domains, func(d string) bool { return lower(d) == domain })
}

// CalledNumber is the number in the user part of a Request-URI: parameters are
// cut off (RFC 3261 section 19.1.6: a user part may be a telephone subscriber),
// escapes are resolved and visual separators (RFC 3966 section 3) are removed.
// A user part with a broken escape gives "", and so does one whose parameters
// send the call elsewhere than to the number: a routing number or carrier
// (RFC 4694: rn, cic), a trunk group (RFC 4904: tgrp).
func CalledNumber(user string) string {
	user, params, _ := strings.Cut(user, ";")
	user, err := url.PathUnescape(user)
	if err != nil {
		return ""
	}
	for p := range strings.SplitSeq(params, ";") {
		name, _, _ := strings.Cut(p, "=")
		name, err := url.PathUnescape(name)
		switch lower(name) {
		case "rn", "cic", "tgrp":
			return ""
		}
		if err != nil {
			return ""
		}
	}
	return stripSeparators(user)
}

func stripSeparators(s string) string {
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune("-.() \t", r) {
			return -1
		}
		return r
	}, s)
}
