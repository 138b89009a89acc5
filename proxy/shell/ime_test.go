package shell

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"imeproxy/proxy/observe"
)

// The appliance of these tests has a peer server.

func (f *traced) PeerServer() (observe.PeerServer, error) {
	return observe.PeerServer{
		Running: true, Enrollment: observe.PeerEnrollment{PeerIDs: []string{"514dd001c7553593ebefee2b076ad9d4"}},
		Servers: []observe.VAPServer{{Name: "ucm1", Port: 5620}, {Name: "ucm2", Port: 5621}},
		Perf: []observe.PerfObject{
			{Name: "IME Server", Counters: []observe.PerfCounter{{Name: "ValidationsPending", Value: 3}}},
			{Name: "IME Configuration Manager", Counters: []observe.PerfCounter{{Name: "DaysUntilCertExpiry", Value: 300}}},
		},
	}, nil
}

func (f *traced) PeerRoutes() (observe.PeerRoutes, error) { return observe.PeerRoutes{}, nil }

func (f *traced) FetchDID(_ context.Context, number string) (observe.DIDClaims, error) {
	return observe.DIDClaims{Number: number}, nil
}

func (f *traced) InstallLicense(file string) (string, int, error) {
	if file != "a.lic" {
		return "", 0, errors.New("no such license")
	}
	return "163d18ab727c0fa14fce75c6651b1362", 5, nil
}

func (f *traced) EnrollPeer(context.Context) error { return nil }

func (f *traced) SetRing(quota uint32, _ string) error {
	if quota == 1 {
		return errors.New("only a bootstrap server changes the ring's settings")
	}
	return nil
}

const peerLines = `peer-server
 listening-interface outside
 bootstrap host 198.51.100.9
 enrollment url https://198.51.100.9:8443
 enrollment trust-file authority.pem
 vapserver ucm1 interface inside authentication-mode authenticated
 vapuser ucm password correct-horse-battery`

// The guide's commands do what the lines of configuration mode do that they stand for.
func TestGuideCommandsOfThePeerServer(t *testing.T) {
	k := newKeeper(t)
	s := newExecutor(newTraced(t), k, time.Now).NewSession(Caller{})
	do := func(line string) string {
		var out strings.Builder
		if err := s.Run(context.Background(), line, &out); err != nil {
			out.WriteString(err.Error())
		}
		return out.String()
	}
	has(t, do("set ime vapserver port ucm1 5622"), `there is no vapserver "ucm1"`)
	has(t, do("add ime vapusercredentials ucm password correct-horse-battery"), "no peer-server is configured")
	if _, err := k.Append("t", strings.Split(peerLines, "\n")); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ line, want string }{
		{"set ime vapserver port ucm1 5622", " vapserver ucm1 interface inside port 5622 authentication-mode authenticated\n"},
		{"set ime vapserver keepaliveinterval ucm1 60", " vapserver ucm1 keepalive-interval 60\n"},
		{"set ime vapserver maxconnectionsallowed ucm1 4", " vapserver ucm1 max-connections 4\n"},
		{"set ime vapserver enabled ucm1 false", " vapserver ucm1 shutdown\n"},
		{"add ime vapserver ucm2 interface inside port 5630 authentication-mode authenticated", " vapserver ucm2 interface inside port 5630 authentication-mode authenticated\n"},
		{"set ime vapserver authenticationmode ucm2 encrypted trust-point local-ent", " vapserver ucm2 interface inside port 5630 authentication-mode encrypted trust-point local-ent\n"},
		{"add ime vapusercredentials ucm2 password correct-horse-battery", " vapuser ucm2 password *****\n"},
		{"set ime addressing publicipaddrv4 198.51.100.1", " public-address 198.51.100.1\n"},
		{"set ime validator local bucketentropy 36", " validator bucket-entropy 36\n"},
	} {
		if said := do(c.line); strings.Contains(said, "rror") || strings.Contains(said, "%") {
			t.Errorf("%s: %s", c.line, said)
		}
		has(t, k.Running().String(), c.want)
	}
	do("set ime vapserver enabled ucm1 true")
	do("delete ime vapserver ucm2")
	do("delete ime vapusercredentials ucm2")
	if text := k.Running().String(); strings.Contains(text, "ucm2") || strings.Contains(text, " vapserver ucm1 shutdown") {
		t.Errorf("after taking back:\n%s", text)
	}
	has(t, do("set ime vapserver port ucm1 80"), "Invalid input detected")
	has(t, do("delete ime vapserver nobody"), "there is no such vapserver")
}

// The guide's questions are answered one after the other; nothing is changed before the last one.
func TestCustomerInfo(t *testing.T) {
	k := newKeeper(t)
	s := newExecutor(newTraced(t), k, time.Now).NewSession(Caller{})
	has(t, typeAll(s, []string{"set ime customerinfo"}), "no peer-server is configured")
	if _, err := k.Append("t", strings.Split(peerLines, "\n")); err != nil {
		t.Fatal(err)
	}
	typeAll(s, []string{"set ime customerinfo", "Enterprise A", "", "quit"})
	if strings.Contains(k.Running().String(), "customer-info") {
		t.Error("questions that were broken off changed something")
	}
	said := typeAll(s, []string{"set ime customerinfo", "Enterprise A", "Branch 7", "", "Norway", "Kari Nordmann", "noc@a.example", "+47 22 00 00 00", "show ime customerinfo"})
	has(t, said, "Company name: Enterprise A\nUnit name: Branch 7\nState: \nCountry: Norway\n")
	has(t, said, "Company name ............ Enterprise A\n")
	has(t, said, "Support contact e-mail .. noc@a.example\n")
	said = typeAll(s, []string{"set ime customerinfo", "", "-", "", "", "", "", "", "show running-config peer-server"})
	has(t, said, "Company name [Enterprise A]: \nUnit name [Branch 7]: -\n")
	has(t, said, " customer-info company Enterprise A\n customer-info country Norway\n customer-info contact-name Kari Nordmann\n")
	if strings.Contains(said, "customer-info unit") {
		t.Error("what was taken away is still there")
	}
	has(t, typeAll(s, []string{"set ime customerinfo", strings.Repeat("x", 129), "", "", "", "", "", ""}), "the text has 129 bytes")
}

func TestPeerServerCommands(t *testing.T) {
	s := newExecutor(newTraced(t), newKeeper(t), time.Now).NewSession(Caller{})
	do := func(line string) string {
		var out strings.Builder
		if err := s.Run(context.Background(), line, &out); err != nil {
			out.WriteString(err.Error())
		}
		return out.String()
	}
	for line, want := range map[string]string{
		"show ime peerid":                       "514dd001c7553593ebefee2b076ad9d4\n",
		"show ime vapserver ucm2":               "Port ..................... 5621",
		"show ime vapserver all | include Name": "VAPServer Name ........... ucm1\nVAPServer Name ........... ucm2\n",
		"show ime vapserver x":                  `there is no vapserver "x"`,
		"show perf":                             "==> IME Server\n    ValidationsPending = 3\n==> IME Configuration Manager\n    DaysUntilCertExpiry = 300\n",
		"show perf query class \"ime server\"":  "==> IME Server\n    ValidationsPending = 3\n",
		"show perf query class nothing":         "there is no object \"nothing\": IME Server, IME Configuration Manager",
		"utils ime fetch did +14085551112":      "+14085551112 is not published in the distributed cache\n",
		"utils ime license file install a.lic":  "License 163d18ab727c0fa14fce75c6651b1362 for 5 peer ID(s) was installed",
		"utils ime license file install b.lic":  "no such license",
		"utils ime certenrollment enroll":       "The certificate was installed\n",
		"set ime dht global storagequota 1":     "only a bootstrap server changes the ring's settings",
		"show ime peerid | json":                `"514dd001c7553593ebefee2b076ad9d4"`,
	} {
		if got := do(line); !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
}
