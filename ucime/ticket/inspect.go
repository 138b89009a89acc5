package ticket

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// extensionView is an extension as inspection shows it.
type extensionView struct {
	Type  string `json:"type"`
	Value string `json:"value"`
}

// view is a ticket as inspection shows it: bytes in hexadecimal, times in UTC
// beside their seconds.
type view struct {
	Version         uint8           `json:"version"`
	TicketID        string          `json:"ticket_id"`
	Salt            string          `json:"salt"`
	NotBefore       string          `json:"not_before"`
	NotBeforeUnix   uint64          `json:"not_before_unix"`
	NotAfter        string          `json:"not_after"`
	NotAfterUnix    uint64          `json:"not_after_unix"`
	Numbers         []string        `json:"numbers"`
	GrantingNode    string          `json:"granting_node"`
	GrantingDomain  string          `json:"granting_domain"`
	GrantedToDomain string          `json:"granted_to_domain"`
	Epoch           uint8           `json:"epoch"`
	Extensions      []extensionView `json:"extensions"`
	Integrity       string          `json:"integrity"`
}

func (t *Ticket) view() view {
	v := view{
		Version: t.Version, TicketID: uuid(t.ID), Salt: hex.EncodeToString(t.Salt[:]),
		NotBefore: utc(t.NotBefore), NotBeforeUnix: t.NotBefore,
		NotAfter: utc(t.NotAfter), NotAfterUnix: t.NotAfter,
		Numbers: t.Numbers, GrantingNode: hex.EncodeToString(t.GrantingNode[:]),
		GrantingDomain: t.GrantingDomain, GrantedToDomain: t.GrantedToDomain, Epoch: t.Epoch,
		Extensions: []extensionView{}, Integrity: hex.EncodeToString(t.Integrity[:]),
	}
	for _, e := range t.Extensions {
		v.Extensions = append(v.Extensions, extensionView{fmt.Sprintf("0x%04x", e.Type), hex.EncodeToString(e.Value)})
	}
	return v
}

// MarshalJSON shows every field under its name in lower snake case.
func (t *Ticket) MarshalJSON() ([]byte, error) { return json.Marshal(t.view()) }

// String shows every field, one a line, in the order of the layout. Nothing in
// a ticket is secret from who holds it.
func (t *Ticket) String() string {
	var b strings.Builder
	line := func(label, format string, args ...any) {
		fmt.Fprintf(&b, "%-18s %s\n", label+":", fmt.Sprintf(format, args...))
	}
	v := t.view()
	line("Version", "%d", v.Version)
	line("Ticket ID", "%s", v.TicketID)
	line("Salt", "%s", v.Salt)
	line("Not before", "%s (%d)", v.NotBefore, v.NotBeforeUnix)
	line("Not after", "%s (%d)", v.NotAfter, v.NotAfterUnix)
	for _, n := range v.Numbers {
		line("Number", "%s", n)
	}
	line("Granting node", "%s", v.GrantingNode)
	line("Granting domain", "%s", v.GrantingDomain)
	line("Granted-to domain", "%s", v.GrantedToDomain)
	line("Epoch", "%d", v.Epoch)
	for _, e := range v.Extensions {
		line("Extension "+e.Type, "%s", e.Value)
	}
	line("Integrity", "%s", v.Integrity)
	return b.String()
}

func uuid(b [16]byte) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// utc shows seconds as a time, or says that they are beyond what RFC 3339 can
// write (year 9999).
func utc(seconds uint64) string {
	const year10000 = 253402300800
	if seconds >= year10000 {
		return "after the year 9999"
	}
	return time.Unix(int64(seconds), 0).UTC().Format(time.RFC3339)
}
