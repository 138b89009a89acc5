package config

import (
	"os"
	"strings"
	"testing"
)

// The text with all defaults means the same as the one without, and has settings that nobody made.
func TestAllMeansTheSame(t *testing.T) {
	for _, file := range []string{"testdata/inline.cfg", "testdata/guide.cfg"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		c, found := Load(file, text)
		if found.HasErrors() {
			t.Fatal(found.Error())
		}
		all := c.print(writer{all: true, reveal: true})
		again, found := Load("all", []byte(all))
		if found.HasErrors() {
			t.Fatalf("%s:\n%s", found.Error(), all)
		}
		if again.All() != c.All() {
			t.Errorf("%s: read again it is\n%s", file, again.All())
		}
		for _, want := range []string{" no shutdown\n", "tls-proxy maximum-sessions 10000\n", " rtp-min-port ", " fallback monitoring timer ", " rtcp\n", "ssh port 2022\n"} {
			if !strings.Contains(c.All(), want) {
				t.Errorf("%s: no %q in\n%s", file, want, c.All())
			}
		}
		if strings.Contains(c.All(), c.UCIME.TicketPassword.Reveal()) {
			t.Error("a secret is shown")
		}
	}
}
