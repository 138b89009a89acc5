package testbed

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// member is a server of the ring with the number that its call agent publishes.
type member struct {
	*Enterprise
	number string
}

// finds says whether a member finds the number of another, by a claim of its peer ID.
func (m member) finds(of member, peer string) error {
	out, err := m.Proxy.Shell("utils ime fetch did " + of.number + " | json")
	if err != nil {
		return err
	}
	if !strings.Contains(out, peer) {
		return fmt.Errorf("%s looked for %s and found %s", m.Letter, of.number, out)
	}
	return nil
}

// members is how many members of the ring one knows.
func (m member) members() int {
	s, err := m.PeerServer()
	if err != nil {
		return -1
	}
	return s.Ring.Members
}

// Ten real peer servers, each in a namespace of its own: every number is found from everywhere in one hop, the loss of two loses none, and while the ring is cut in two
// nobody is told that a number is not published.
func TestTenPeerServers(t *testing.T) {
	l := Start(t, Options{NoCallAgents: true})
	r := l.StartRing(t)
	var publishers []member
	all := []member{{Enterprise: r.Boot}}
	for i := range 7 {
		letter := string(rune('c' + i))
		e := r.AddServer(t, letter, letter+".example", fmt.Sprintf("203.0.113.%d/27", 32*(i+1)))
		r.Join(t, e, peerLines("outside")+" ticket epoch 1 password ticket-password-of-x\n")
		m := member{e, fmt.Sprintf("+1415555010%d", i)}
		r.Publish(t, e, m.number)
		publishers = append(publishers, m)
	}
	for _, e := range l.Enterprises() {
		r.Join(t, e, peerLines("inside"))
		all = append(all, member{Enterprise: e})
	}
	all = append(all, publishers...)
	peer := map[string]string{}
	for _, m := range all {
		Until(t, 60*time.Second, m.Letter+" knows all ten", func() bool { return m.members() == 10 })
		s, err := m.PeerServer()
		if err != nil {
			t.Fatal(err)
		}
		peer[m.Letter] = s.Enrollment.PeerIDs[0]
	}
	for _, m := range publishers {
		Until(t, 60*time.Second, "number of "+m.Letter+" lies with its holders", func() bool {
			s, err := m.PeerServer()
			return err == nil && s.Ring.QuotaUsed == 1 && s.Ring.Placed == 1
		})
	}
	everybodyFinds := func(what string, from []member) {
		t.Helper()
		for _, m := range from {
			for _, of := range publishers {
				if err := m.finds(of, peer[of.Letter]); err != nil {
					t.Errorf("%s: %v", what, err)
				}
			}
		}
	}
	everybodyFinds("with ten", all)
	held := holders(t, all[0], publishers)
	for number, n := range held {
		if n != 3 {
			t.Errorf("%s is held by %d members, want 3", number, n)
		}
	}

	// Two are lost at once, without a word.
	lost, rest := publishers[:2], append(append([]member{}, all[:3]...), publishers[2:]...)
	for _, m := range lost {
		m.Proxy.Kill()
	}
	everybodyFinds("two are lost", rest)

	// The ring is cut in two: three and the others. A number is found, or it is said that nobody could be asked; never that nobody claims it.
	mend := cutOff(t, l, rest[5:])
	var wg sync.WaitGroup
	var mu sync.Mutex
	answered := 0
	for _, m := range rest {
		for _, of := range publishers {
			wg.Go(func() {
				out, err := m.Proxy.Shell("utils ime fetch did " + of.number)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil && strings.Contains(out, peer[of.Letter]):
					answered++
				case err == nil || !strings.Contains(err.Error(), "no holder of the number could be asked"):
					t.Errorf("%s, cut off, looked for %s: %v %s", m.Letter, of.number, err, out)
				}
			})
		}
	}
	wg.Wait()
	if answered == 0 {
		t.Error("nothing is found in either half")
	}
	t.Logf("cut in two, %d of %d look-ups are answered", answered, len(rest)*len(publishers))
	mend()
	everybodyFinds("after the cut", rest)
	for _, m := range rest {
		r.WaitHealth(t, m.Enterprise, "GREEN")
	}
}

// holders counts who holds each number.
func holders(t *testing.T, from member, of []member) map[string]int {
	t.Helper()
	out := map[string]int{}
	for _, m := range of {
		text, err := from.Proxy.Shell("utils ime fetch did " + m.number + " | json")
		var d struct {
			Claims []struct {
				Holders []string `json:"holders"`
			} `json:"claims"`
		}
		if err != nil || json.Unmarshal([]byte(text), &d) != nil || len(d.Claims) != 1 {
			t.Errorf("claims of %s: %v %s", m.number, err, text)
			continue
		}
		out[m.number] = len(d.Claims[0].Holders)
	}
	return out
}

// cutOff keeps the Internet from carrying anything between a group and all others; what it returns ends that.
func cutOff(t *testing.T, l *Lab, group []member) func() {
	t.Helper()
	var inside []string
	for _, m := range group {
		inside = append(inside, `"e`+m.Letter+`"`)
	}
	set := "{ " + strings.Join(inside, ", ") + " }"
	l.Internet.MustRun(t, "nft", "add table ip cut; add chain ip cut f { type filter hook forward priority 0; }; "+
		"add rule ip cut f iifname "+set+" oifname != "+set+" drop; add rule ip cut f iifname != "+set+" oifname "+set+" drop")
	return func() { l.Internet.MustRun(t, "nft", "delete table ip cut") }
}
