package mapping

import "testing"

func TestReservedPortsOfOthersStay(t *testing.T) {
	for _, c := range []struct{ have, want string }{
		{"", "20000-39999"},
		{"80", "80,20000-39999"},
		{"8080-8090,50000", "8080-8090,20000-39999,50000"},
		{"20000-39999", "20000-39999"},
		{"19999,25000-45000", "19999-45000"},
		{"40000,80", "80,20000-40000"},
	} {
		if got := withPorts(c.have, PortSpan{20000, 39999}); got != c.want {
			t.Errorf("%q: %q, want %q", c.have, got, c.want)
		}
	}
}
