package proxy

import (
	"strings"
	"testing"

	"imeproxy/ucime/ticket"
)

// TestTicketRefusalNamesBothSides gives the log what differs, so that nobody needs the ticket itself to explain a 403.
func TestTicketRefusalNamesBothSides(t *testing.T) {
	tk := &ticket.Ticket{
		NotBefore: 1793000000, NotAfter: 1824536000, Numbers: []string{"+1", "+2", "+3", "+4", "+5"}, GrantingDomain: "c.example", GrantedToDomain: "b.example", Epoch: 2,
	}
	for res, want := range map[ticket.Result]string{
		ticket.NotFound:          "there is no ticket",
		ticket.EpochMismatch:     "(its epoch 2, here 7)",
		ticket.IntegrityFailed:   "was not made with this password",
		ticket.TimestampInvalid:  "(valid from 2026-10-26T07:33:20Z to 2027-10-26T07:33:20Z)",
		ticket.DIDMismatch:       "(+1 +2 +3 and 2 more)",
		ticket.DomainFailed:      "(granted to b.example, the certificate is of a.example)",
		ticket.RouteDomainFailed: "(granted by c.example)",
	} {
		if got := ticketRefusal(res, tk, 7, []string{"a.example"}); !strings.Contains(got, want) {
			t.Errorf("%s: %q", res, got)
		}
		if got := ticketRefusal(res, nil, 7, nil); got != ticketMeanings[res] {
			t.Errorf("%s of no ticket: %q", res, got)
		}
	}
	tk.NotAfter = 1 << 63
	if got := ticketRefusal(ticket.TimestampInvalid, tk, 7, nil); !strings.Contains(got, "to never") {
		t.Errorf("a date beyond all: %q", got)
	}
}
