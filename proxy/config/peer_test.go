package config

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// peerText is the in-line example with a peer server behind it.
func peerText(t *testing.T, pairs ...string) string {
	t.Helper()
	text := `peer-server
 listening-interface outside
 bootstrap host 198.51.100.9
 enrollment url https://198.51.100.9:8443
 enrollment trust-file authority.pem
 vapserver ucm1 interface inside authentication-mode encrypted trust-point local-ent
 vapuser ucm password correct-horse-battery
`
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(text, pairs[i]) {
			t.Fatalf("the example has no %q", pairs[i])
		}
		text = strings.ReplaceAll(text, pairs[i], pairs[i+1])
	}
	return inline(t) + "\n" + text
}

func TestPeerServerResolves(t *testing.T) {
	c, found := Load("f", []byte(peerText(t)))
	if len(found) > 0 {
		t.Fatal(found.Error())
	}
	fixedPoint(t, c)
	r, _ := c.Resolve()
	s := r.PeerServer
	if s.Domain != c.DomainName || s.On.Nameif != "outside" || s.Epoch != c.UCIME.TicketEpoch || s.Password != c.UCIME.TicketPassword {
		t.Errorf("domain %q, interface %s, epoch %d", s.Domain, s.On.Nameif, s.Epoch)
	}
	if len(s.VAPServers) != 1 || s.VAPServers[0].On.Nameif != "inside" || s.VAPServers[0].Port != 5620 || s.RingPort != 6084 || s.ValidatorPort != 8470 {
		t.Errorf("%v", s)
	}
	if s.BucketEntropy != 24 || s.CallInterval != time.Hour || s.DelayMin != time.Minute || s.DelayMax != 5*time.Minute || s.Bootstraps[0].Port != 6084 {
		t.Errorf("defaults: %v", s)
	}
}

// A server alone needs no proxy: it has the password of the one at the edge.
func TestPeerServerAlone(t *testing.T) {
	text := `interface eth0
 nameif outside
 ip address 203.0.113.4 255.255.255.0
peer-server
 domain ring.example
 listening-interface outside
 bootstrap-server
 enrollment url https://enroll.example:8443
 enrollment trust-file authority.pem
 ticket epoch 7 password password1234
 vapserver v interface outside authentication-mode authenticated
 vapserver v shutdown
 vapuser u password correct-horse-battery
`
	c, found := Load("f", []byte(text))
	if found.HasErrors() {
		t.Fatal(found.Error())
	}
	r, _ := c.Resolve()
	if r.PeerServer.Epoch != 7 || r.PeerServer.Password.Reveal() != "password1234" || len(r.PeerServer.VAPServers) != 0 {
		t.Errorf("%v", r.PeerServer)
	}
}

func TestPeerServerMistakes(t *testing.T) {
	for name, x := range map[string]struct {
		pairs []string
		want  string
	}{
		"no interface":         {[]string{" listening-interface outside\n", ""}, "the peer-server has no listening-interface"},
		"unknown interface":    {[]string{"interface outside", "interface outsid"}, `interface "outsid" does not exist`},
		"no bootstrap":         {[]string{" bootstrap host 198.51.100.9\n", ""}, "the peer-server knows no bootstrap server"},
		"no enrollment":        {[]string{" enrollment trust-file authority.pem\n", ""}, "the peer-server has no enrollment"},
		"second ticket":        {[]string{" vapuser", " ticket epoch 1 password password1234\n vapuser"}, "issues tickets by the epoch and password of the uc-ime"},
		"masked password":      {[]string{"correct-horse-battery", "*****"}, "the password is masked"},
		"unknown trustpoint":   {[]string{"trust-point local-ent", "trust-point nobody"}, `crypto ca trustpoint "nobody" does not exist`},
		"one port twice":       {[]string{" vapuser", " vapserver b interface inside authentication-mode encrypted trust-point local-ent\n vapuser"}, "port 5620 of interface inside is taken"},
		"port of the ring":     {[]string{"vapserver ucm1 interface inside", "vapserver ucm1 interface outside port 6084"}, "port 6084 of interface outside is taken"},
		"both ports equal":     {[]string{" vapuser", " validator-port 6084\n vapuser"}, "dht-port and validator-port are both 6084"},
		"unencrypted is told":  {[]string{"encrypted trust-point local-ent", "authenticated"}, "without encryption"},
		"no user is told":      {[]string{" vapuser ucm password correct-horse-battery\n", ""}, "has no vapuser"},
		"no vapserver is told": {[]string{" vapserver ucm1 interface inside authentication-mode encrypted trust-point local-ent\n", ""}, "has no vapserver"},
	} {
		_, found := Load("f", []byte(peerText(t, x.pairs...)))
		if len(found) != 1 || !strings.Contains(found[0].Message, x.want) {
			t.Errorf("%s: want %q, got %s", name, x.want, found.Error())
		}
	}
}

// No way of printing shows a password, and a change of one is told.
func TestPeerServerSecrets(t *testing.T) {
	c, _ := Load("f", []byte(peerText(t)))
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%d", "%x"} {
		for _, x := range []any{c.PeerServer, c.PeerServer.VAPUsers, c.PeerServer.VAPUsers[0]} {
			if s := fmt.Sprintf(verb, x); strings.Contains(s, "correct-horse") || strings.Contains(s, fmt.Sprintf("%x", "correct-horse")) {
				t.Errorf("%s shows the password: %s", verb, s)
			}
		}
	}
	if s := c.String() + c.All(); strings.Contains(s, "correct-horse") || !strings.Contains(c.Startup(), "vapuser ucm password correct-horse-battery") {
		t.Errorf("text:\n%s", s)
	}
	other, _ := Load("f", []byte(peerText(t, "correct-horse-battery", "another-horse-battery")))
	if d := Difference(c, other); len(d) != 1 || d[0] != "  a password of the peer-server is another one" {
		t.Errorf("%q", d)
	}
}

func TestPeerServerCaps(t *testing.T) {
	var b strings.Builder
	b.WriteString("peer-server\n")
	for i := range 17 {
		fmt.Fprintf(&b, " bootstrap host 10.0.0.%d\n vapserver v%d interface i port %d authentication-mode authenticated\n", i+1, i, 6000+i)
	}
	for i := range 65 {
		fmt.Fprintf(&b, " vapuser u%d password correct-horse-battery\n", i)
	}
	c, found := Parse("f", []byte(b.String()))
	if len(found) != 3 || len(c.PeerServer.Bootstraps) != 16 || len(c.PeerServer.VAPServers) != 16 || len(c.PeerServer.VAPUsers) != 64 {
		t.Errorf("%d mistakes: %s", len(found), found.Error())
	}
}
