package proxy

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"imeproxy/proxy/observe"
	"imeproxy/ucime/ticket"
)

// ticketMeanings tells an operator what each result means, in the order of the checks: a later one says that the earlier ones passed.
var ticketMeanings = map[ticket.Result]string{
	ticket.OK:                "a request with this ticket is let in",
	ticket.NotFound:          "there is no ticket: the other side's call agent must add one",
	ticket.DecodeFailed:      "the ticket cannot be read: it was cut off or changed on its way, or there were several",
	ticket.EpochMismatch:     "the ticket is of another epoch: the epoch here was changed since it was issued, so the other side needs a new ticket",
	ticket.IntegrityFailed:   "the ticket was not made with this password: compare the password of ticket epoch with that of the issuer, or it was forged",
	ticket.TimestampInvalid:  "the ticket is not valid now: it has expired or begins later; compare the clocks of both sides (show clock)",
	ticket.DIDMismatch:       "the called number is none of those that the ticket grants",
	ticket.DomainFailed:      "the caller's certificate is not that of the domain which the ticket was granted to",
	ticket.RouteDomainFailed: "the ticket was granted by another domain than those of this proxy's certificate",
}

// ticketRefusal tells an operator why a ticket was refused, with the figures of both sides that differ. What the ticket claims is the sender's word
// up to the integrity check; t may be nil.
func ticketRefusal(res ticket.Result, t *ticket.Ticket, epoch uint8, peers []string) string {
	why := ticketMeanings[res]
	if t == nil {
		return why
	}
	moment := func(unix uint64) string {
		if unix > 1<<37 { // beyond what a date has four digits for
			return "never"
		}
		return time.Unix(int64(unix), 0).UTC().Format(time.RFC3339)
	}
	switch res {
	case ticket.EpochMismatch:
		return fmt.Sprintf("%s (its epoch %d, here %d)", why, t.Epoch, epoch)
	case ticket.TimestampInvalid:
		return fmt.Sprintf("%s (valid from %s to %s)", why, moment(t.NotBefore), moment(t.NotAfter))
	case ticket.DIDMismatch:
		return fmt.Sprintf("%s (%s)", why, several(t.Numbers))
	case ticket.DomainFailed:
		return fmt.Sprintf("%s (granted to %s, the certificate is of %s)", why, t.GrantedToDomain, several(peers))
	case ticket.RouteDomainFailed:
		return fmt.Sprintf("%s (granted by %s)", why, t.GrantingDomain)
	}
	return why
}

// several lists a few names for a log line.
func several(names []string) string {
	const most = 3
	switch {
	case len(names) == 0:
		return "none"
	case len(names) > most:
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], " "), len(names)-most)
	}
	return strings.Join(names, " ")
}

// TestTicket checks a ticket as a request with it would be. An empty called number or peer domain is taken from the ticket itself, and so is not
// checked. Nothing is counted.
func (a *Appliance) TestTicket(header, called, peer string) (observe.TicketTest, error) {
	p := a.plan.Load()
	if p.UCIME == nil || len(p.classes) == 0 {
		return observe.TicketTest{}, errors.New("no uc-ime is in force: there is nothing to check tickets with")
	}
	var out observe.TicketTest
	if t, err := ticket.Decode(header); err == nil {
		if out.Claims = strings.Split(strings.TrimSuffix(t.String(), "\n"), "\n"); called == "" && len(t.Numbers) > 0 {
			called = t.Numbers[0]
			out.Assumed = append(out.Assumed, "the called number, taken as "+called)
		}
		if peer == "" {
			peer = t.GrantedToDomain
			out.Assumed = append(out.Assumed, "the caller's domain, taken as "+peer)
		}
	}
	v := ticket.Verifier{Key: p.ticketKey, OwnDomains: a.ownDomains(p.classes[0])}
	res, _ := v.Verify([]string{header}, called, []string{peer}, a.now())
	out.Result, out.Meaning = res.Label(), ticketMeanings[res]
	return out, nil
}
