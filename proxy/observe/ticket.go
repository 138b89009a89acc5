package observe

import (
	"fmt"
	"strings"
)

// TicketTest is the answer to `test uc-ime ticket`.
type TicketTest struct {
	// Result is "ok" or the name of the counter that a request with this ticket would add to.
	Result  string `json:"result"`
	Meaning string `json:"meaning"` // what the result means, and what to do
	// Assumed says what was taken from the ticket itself because the command did not give it.
	Assumed []string `json:"assumed,omitempty"`
	Claims  []string `json:"claims,omitempty"` // what the ticket says, line by line, true only where the result is ok; none when it cannot be read
}

// Text gives the result before what the ticket says.
func (t TicketTest) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Result: %s\n  %s\n", Clean(t.Result), Clean(t.Meaning))
	for _, a := range t.Assumed {
		fmt.Fprintf(&b, "  not checked: %s\n", Clean(a))
	}
	if len(t.Claims) > 0 {
		b.WriteString("What the ticket says:\n")
	}
	for _, c := range t.Claims {
		b.WriteString("  " + Clean(c) + "\n")
	}
	return b.String()
}
