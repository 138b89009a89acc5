package config

import (
	"os"
	"strings"
	"testing"
)

// FuzzParse checks that no text brings the parser down, that each diagnostic can be printed and points into the text, that a
// configuration without errors prints to a text that means the same, and that no password gets out.
func FuzzParse(f *testing.F) {
	inline, err := os.ReadFile("testdata/inline.cfg")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(inline))
	for _, block := range strings.Split(string(inline), "\n ") {
		f.Add(block)
	}
	for _, s := range []string{
		"object network o\n nat (a, b) static 1.2.3.4 service tcp 1 2\n",
		"access-list a permit tcp any eq sip object o range 1 2\nno access-list a\n",
		"access-list a permit ip any any log 3 interval 60\naccess-list a line 1 permit ip any any log disable\naccess-list deny-flow-max 7\nno access-list alert-interval\n",
		"crypto ca trustpoint t\n subject-name cn=a, o=\"b, \\\"c\\\"\"\ncrypto ca authenticate t\n" + string(testCertificate()) + "quit\n",
		"crypto ca import t certificate\nMIIB\nquit\n", "banner motd “x”\r\n", "uc-ime u\n ticket epoch 1 password \x01\n",
		"policy-map p\n class c\n  inspect sip uc uc-ime a tls-proxy b\n", "interface e\n description \" a\n no description",
		"-----BEGIN PRIVATE KEY-----\nabc\n-----END PRIVATE KEY-----\nroute a 0 0 1.1.1.1 1",
		"tls-proxy tls-proxy\n client cipher aes1 aes2 3 d n\nssl client-version tlsv1.2\n tls-proxy maximum-sessions 1",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, found := Load("f", []byte(text))
		lines := strings.Count(text, "\n") + 1
		for _, d := range found {
			if d.Line < 1 || d.Line > lines || d.Col < 1 || d.Message == "" {
				t.Fatalf("a diagnostic without a place: %+v", d)
			}
			_ = d.Error()
		}
		if c.UCIME != nil && len(c.UCIME.TicketPassword) > 9 {
			p := c.UCIME.TicketPassword.Reveal()
			if out := c.String() + found.Error(); strings.Count(out, p) > strings.Count(text, p)-1 {
				t.Fatalf("the password %q is shown: %s", p, out)
			}
		}
		if _, parsed := Parse("f", []byte(text)); len(parsed) > 0 {
			return
		}
		once := c.String()
		again, found2 := Parse("again", []byte(once))
		if len(found2) > 0 || again.String() != once {
			t.Fatalf("%q prints %q, which gives %s %q", text, once, found2.Error(), again.String())
		}
		if c.UCIME != nil && again.UCIME != nil {
			again.UCIME.TicketPassword = c.UCIME.TicketPassword
		}
		r, _ := c.Resolve()
		r2, found2 := again.Resolve()
		if (r == nil) != (r2 == nil) && !strings.Contains(found.Error(), "before it is created") {
			t.Fatalf("%q resolves: %v; its canonical text: %s", text, r != nil, found2.Error())
		}
	})
}
