package testbed

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// StoryReport is what became of the calls from which a route was learned, in build/demo/report.json.
type StoryReport struct {
	// Seconds from the start of the first server of the ring to the first call over the Internet.
	Seconds float64 `json:"from_nothing_to_first_internet_call_s"`
	// PSTNCalls is how many calls over the PSTN that took.
	PSTNCalls int `json:"pstn_calls"`
	// Learned is the number, Domain and Peer who proved it.
	Learned string `json:"learned_number"`
	Domain  string `json:"domain"`
	Peer    string `json:"peer"`
	// PenaltyBox has the peer IDs that failed to prove a number.
	PenaltyBox []string `json:"penalty_box"`
	// LiarRoutes is how many routes were learned of the liar.
	LiarRoutes int `json:"routes_of_the_liar"`
}

// Waiting times that the story lowers, so that nobody waits for hours: between two validated calls of one number, and before a validation.
const (
	storyInterval = 1 // s, in place of 3600
	storyDelay    = 1 // s, in place of 60 to 300
)

const vapPassword = "correct-horse-battery"

// peerLines are what members of the story have in mode peer-server; nameif is where their call agents are.
func peerLines(nameif string) string {
	return fmt.Sprintf(" vapserver ucm1 interface %s authentication-mode authenticated\n vapuser ucm password %s\n validator call-interval %d\n validator delay %d %d\n",
		nameif, vapPassword, storyInterval, storyDelay, storyDelay)
}

// WithPeerServer makes a call agent's configuration one with a peer server; it is an AgentConfig.
func WithPeerServer(address string) func(string) string {
	return func(text string) string {
		return strings.Replace(text, "\n activated", "\n primary-server ime\n activated", 1) +
			fmt.Sprintf("ime-server ime\n address %s\n application-user ucm\n password %s\n reconnect-interval 1\n", address, vapPassword)
	}
}

// story is what stands while it is told.
type story struct {
	t       T
	l       *Lab
	say     func(string, ...any)
	ring    *Ring
	liar    *Enterprise
	report  StoryReport
	problem func(string, ...any)
}

// StoryJob tells how a route is learned from nothing, and how its call falls back: an authority and a bootstrap server, two enterprises and a liar who claims
// the number of one of them; phones call over the PSTN, the peer servers validate, the liar proves nothing and lands in the penalty box, route and ticket arrive at the
// call agent, the next call goes over the Internet, which turns bad. The lab needs Options.PSTN and WithPeerServer for both call agents; JoinPSTN is done here.
func StoryJob(t T, l *Lab, say func(format string, args ...any)) (r StoryReport, f FallbackReport, problems []string) {
	t.Helper()
	if say == nil {
		say = func(string, ...any) {}
	}
	s := &story{t: t, l: l, say: say, problem: func(format string, args ...any) { problems = append(problems, "story: "+fmt.Sprintf(format, args...)) }}
	begun := time.Now()
	wire := l.Capture(t, l.Internet.Host, "ea") // all that A's peer server says and hears
	s.ring = l.StartRing(t)
	say("An enrolment authority (%s) and a bootstrap server (%s) stand; lowered for the show: calls of one number every %d s (3600) and %d s (60 to 300) before a validation",
		s.ring.URL, s.ring.BootIP, storyInterval, storyDelay)
	l.JoinPSTN(t)
	s.liarFirst()
	s.ownerProves()
	wire.Stop(t)
	s.onTheWire(wire.Packets(t))
	f, more := fallbackJob(t, l, true, func(format string, args ...any) {
		if s.report.Seconds == 0 && strings.Contains(format, "goes over the Internet") {
			s.report.Seconds = time.Since(begun).Seconds()
		}
		say(format, args...)
	})
	say("  From an empty ring to the first call over the Internet: %.0f s, with %d calls over the PSTN", s.report.Seconds, s.report.PSTNCalls)
	if s.report.Seconds > 60 {
		s.problem("%.0f s from an empty ring to the first call over the Internet, want less than 60", s.report.Seconds)
	}
	return s.report, f, append(problems, more...)
}

// liarFirst lets the liar claim B's number before B's own peer server is there.
func (s *story) liarFirst() {
	t, a, b := s.t, s.l.A, s.l.B
	t.Helper()
	s.liar = s.ring.AddServer(t, "x", "liar.example", "203.0.113.32/27")
	s.ring.Join(t, s.liar, peerLines("outside")+" ticket epoch 1 password ticket-password-of-x\n")
	s.ring.Publish(t, s.liar, b.Number)
	s.ring.Join(t, a, peerLines("inside"))
	s.publishes(a)
	s.publishes(s.liar)
	s.say("%s has a peer server now; so has liar.example, which claims %s, the number of %s", a.Domain, b.Number, b.Domain)
	s.claimed(a, b.Number, 1)
	s.pstnCall()
	box := s.awaitPool(a, "the liar is in the penalty box", func(p pool) bool { return p.Peer == s.peerID(s.liar) && len(p.Numbers) == 1 })
	s.report.PenaltyBox = []string{box.Peer}
	if box.Value != 0 {
		s.problem("the liar's bucket has %d", box.Value)
	}
	s.say("  %s asked the liar to prove that call: it could not. Peer %s is in the penalty box for %s", a.Domain, box.Peer, b.Number)
	s.counters(a, map[string]float64{"ValidationAttempts": 1, "TerminatingVCRs": 0, "ClientsRegistered": 1})
}

// ownerProves brings the peer server of B, which proves two calls.
func (s *story) ownerProves() {
	t, a, b := s.t, s.l.A, s.l.B
	t.Helper()
	s.ring.Join(t, b, peerLines("inside"))
	s.publishes(b)
	s.claimed(a, b.Number, 2)
	s.say("%s has its own peer server: two claim %s now", b.Domain, b.Number)
	owner := s.peerID(b)
	for i, want := range []int{12, 0} {
		s.pstnCall()
		s.awaitPool(a, fmt.Sprintf("call %d is proven", i+1), func(p pool) bool { return p.Peer == owner && (p.Value == want && i == 0 || i == 1 && p.Value == 0) })
		if i == 0 {
			s.say("  %s proved the call (called and calling number, start and stop): its bucket holds 12 of 24", b.Domain)
			if n := len(s.routes(a)); n != 0 {
				s.problem("%d routes after one proof, want none yet", n)
			}
		}
	}
	var routes []learnedRoute
	Until(t, 20*time.Second, "the call agent has stored the route", func() bool {
		routes = s.routes(a)
		return len(routes) == 1 && routes[0].State == "stored"
	})
	r := routes[0]
	s.report.Learned, s.report.Domain, s.report.Peer = r.Number, r.Domain, r.Peer
	if r.Number != b.Number || r.Domain != b.Domain || r.Peer != owner {
		s.problem("learned %+v, want %s of %s, peer %s", r, b.Number, b.Domain, owner)
	}
	for _, x := range routes {
		if x.Peer == s.peerID(s.liar) || x.Domain == "liar.example" {
			s.report.LiarRoutes++
			s.problem("a route of the liar was learned: %+v", x)
		}
	}
	s.say("  %s proved a second one: the bucket reached 24, and route and ticket for %s went to the call agent, which has stored them", b.Domain, r.Number)
	if list := a.Agent.Command(t, "routes", "list"); !strings.Contains(list, b.Number) || !strings.Contains(list, b.Mapped.String()) {
		s.problem("routes of the call agent:\n%s", list)
	}
	s.nothingLeaks()
}

// pstnCall is a short call of A to B; its records go up to the peer servers.
func (s *story) pstnCall() {
	t, a, b := s.t, s.l.A, s.l.B
	t.Helper()
	s.report.PSTNCalls++
	setup := a.Phone.Call(t, b.Phone)
	if calls := a.Agent.Calls(t); len(calls) != 1 || calls[0].Way != "pstn" {
		s.problem("the call stands as %+v, want one over the PSTN", calls)
	}
	tap := s.l.Capture(t, a.PhoneHost, "eth0")
	s.l.TalkFor(t, time.Second, tap)
	a.Phone.Hangup(t)
	b.Phone.WaitEvent(t, "CALL_CLOSED", 10*time.Second)
	tap.Stop(t)
	s.say("%s calls %s over the PSTN (answered after %d ms) and hangs up; records of the call go to the peer servers", a.Number, b.Number, setup.Milliseconds())
	Until(t, 10*time.Second, "the record of A is at its peer server", func() bool { return len(a.Agent.VCRs(t)) == 0 })
}

// publishes waits until an enterprise's call agent is registered and its numbers lie in the ring.
func (s *story) publishes(e *Enterprise) {
	s.t.Helper()
	Until(s.t, 30*time.Second, "numbers of "+e.Domain+" are in the distributed cache", func() bool {
		p, err := e.PeerServer()
		return err == nil && len(p.Clients) == 1 && p.Clients[0].Registered && len(p.Services) == 1 && p.Services[0].Numbers == 1 && p.Ring.QuotaUsed == 1 && p.Ring.Placed == 1
	})
}

// claimed waits until a number has as many claims in a member's eyes.
func (s *story) claimed(e *Enterprise, number string, want int) {
	s.t.Helper()
	Until(s.t, 30*time.Second, fmt.Sprintf("%d claim %s", want, number), func() bool {
		out, err := e.Proxy.Shell("utils ime fetch did " + number + " | json")
		var d struct {
			Claims []struct{} `json:"claims"`
		}
		return err == nil && json.Unmarshal([]byte(out), &d) == nil && len(d.Claims) == want
	})
}

// pool is one of `show ime validator pools`.
type pool struct {
	Peer    string
	Value   int
	Numbers []string
}

func (s *story) awaitPool(e *Enterprise, what string, ok func(pool) bool) (found pool) {
	s.t.Helper()
	Until(s.t, 30*time.Second, what, func() bool {
		state, err := e.PeerServer()
		if err != nil {
			return false
		}
		for _, p := range state.Pools {
			x := pool{Peer: p.Peer, Value: p.Value}
			for _, n := range p.Numbers {
				x.Numbers = append(x.Numbers, n.Number)
			}
			if ok(x) {
				found = x
				return true
			}
		}
		return false
	})
	return found
}

func (s *story) peerID(e *Enterprise) string {
	s.t.Helper()
	p, err := e.PeerServer()
	if err != nil || len(p.Enrollment.PeerIDs) == 0 {
		s.t.Fatalf("peer ID of %s: %v", e.Domain, err)
	}
	return p.Enrollment.PeerIDs[0]
}

type learnedRoute struct {
	Number string `json:"number"`
	Domain string `json:"domain"`
	Peer   string `json:"peer"`
	State  string `json:"state"`
}

func (s *story) routes(e *Enterprise) []learnedRoute {
	s.t.Helper()
	var r struct {
		Routes []learnedRoute `json:"routes"`
	}
	e.Proxy.Show(s.t, "ime routes", &r)
	return r.Routes
}

// counters compares the guide's counters.
func (s *story) counters(e *Enterprise, want map[string]float64) {
	p, err := e.PeerServer()
	if err != nil {
		s.problem("counters of %s: %v", e.Domain, err)
		return
	}
	for name, v := range want {
		if got := p.Counter(name); got != v {
			s.problem("%s of %s is %.0f, want %.0f", name, e.Domain, got, v)
		}
	}
}

// onTheWire looks at what peer servers said over the Internet: ring and validation, and no number that could be read.
func (s *story) onTheWire(packets []Packet) {
	a := s.l.A
	count := map[uint16]int{}
	for _, p := range packets {
		if p.Proto != protoTCP || p.Src.Addr() != a.OutsideIP && p.Dst.Addr() != a.OutsideIP || len(p.Payload) == 0 {
			continue
		}
		for _, n := range []string{a.Number, s.l.B.Number} {
			if strings.Contains(string(p.Payload), strings.TrimPrefix(n, "+")) {
				s.problem("%s can be read on the Internet, from %v to %v", n, p.Src, p.Dst)
			}
		}
		for _, port := range []uint16{p.Src.Port(), p.Dst.Port()} {
			count[port]++
		}
	}
	if count[6084] == 0 || count[8470] == 0 || count[enrollPort] == 0 {
		s.problem("packets on the Internet by port: %v, want some of 6084, 8470 and %d", count, enrollPort)
	}
	var metrics struct {
		Text string `json:"metrics"`
	}
	a.Proxy.Show(s.t, "metrics", &metrics)
	for _, want := range []string{"imeproxy_peer_server_validations_pending 0\n", "imeproxy_peer_server_ime_distributed_cache_health 2\n", "imeproxy_peer_server_clients_registered 1\n"} {
		if !strings.Contains(metrics.Text, want) {
			s.problem("metrics of %s have no %q", a.Domain, want)
		}
	}
	if holding(filepath.Join(a.Proxy.StateDir, "peer-server"), s.l.B.Number) == "" {
		s.problem("%s stands in no file of %s", s.l.B.Number, a.Domain)
	}
	s.say("  Internet  %d packets of the distributed cache (6084), %d of validation (8470), no number can be read in them", count[6084], count[8470])
}

// nothingLeaks looks at what the liar and the bootstrap server know: neither number stands in anything that they keep or log, but the number that the liar itself claims.
func (s *story) nothingLeaks() {
	for _, e := range []*Enterprise{s.ring.Boot, s.liar} {
		for _, n := range []string{s.l.A.Number, s.l.B.Number} {
			if e == s.liar && n == s.l.B.Number {
				continue
			}
			if where := holding(e.Proxy.StateDir, n, strings.TrimPrefix(n, "+")); where != "" {
				s.problem("%s stands in %s of %s", n, where, e.Domain)
			}
			if strings.Contains(e.Proxy.Log(), strings.TrimPrefix(n, "+")) {
				s.problem("%s stands in the log of %s", n, e.Domain)
			}
		}
	}
}

// holding names the first file of a folder that has one of the texts.
func holding(dir string, texts ...string) (found string) {
	_ = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && found == "" {
			data := readAll(path)
			if slices.ContainsFunc(texts, func(x string) bool { return strings.Contains(data, x) }) {
				found = path
			}
		}
		return nil
	})
	return found
}
