package observe

import (
	"fmt"
	"strings"
)

// IMECustomer is the answer to `show ime customerinfo` (guide lines 1803-1815).
type IMECustomer struct {
	Company      string `json:"company"`
	Unit         string `json:"unit"`
	State        string `json:"state"`
	Country      string `json:"country"`
	ContactName  string `json:"contact_name"`
	ContactEmail string `json:"contact_email"`
	ContactPhone string `json:"contact_phone"`
}

// Text gives a line each, in the order in which they are asked for.
func (c IMECustomer) Text() string {
	var b strings.Builder
	for i, text := range []string{c.Company, c.Unit, c.State, c.Country, c.ContactName, c.ContactEmail, c.ContactPhone} {
		fmt.Fprintf(&b, "%s %s %s\n", CustomerLabels[i], strings.Repeat(".", 24-len(CustomerLabels[i])), Clean(text))
	}
	return b.String()
}

// CustomerLabels are the guide's words for what a customer is asked.
var CustomerLabels = [7]string{"Company name", "Unit name", "State", "Country", "Support contact name", "Support contact e-mail", "Support contact phone"}
