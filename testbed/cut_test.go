package testbed

import (
	"fmt"
	"testing"
	"time"
)

// mediaInUse is the number of calls whose media a proxy still carries.
func mediaInUse(t T, p *Proxy) int {
	t.Helper()
	var v struct {
		InUse int `json:"in_use"`
	}
	p.Show(t, "uc-ime media-sessions detail", &v)
	return v.InUse
}

// Every connection of a standing call is cut in turn. The sound goes on, and
// each side's hanging up reaches the other over a new connection.
func TestConnectionsCutInMidCall(t *testing.T) {
	lab := Start(t, Options{})
	trunk := fmt.Sprintf("( sport = :%d or dport = :%d )", TrunkPort, TrunkPort)
	for _, cut := range []struct {
		name string
		host *Host
		kill string
	}{
		{"between the proxies", lab.A.EdgeHost, "src " + lab.A.Mapped.String() + " and dst " + lab.B.Mapped.String()},
		{"call agent A", lab.A.UCMHost, trunk},
		{"call agent B", lab.B.UCMHost, trunk},
	} {
		for _, hangsUp := range lab.Enterprises() {
			t.Run(cut.name+", "+hangsUp.Letter+" hangs up", func(t *testing.T) {
				inside := lab.Capture(t, lab.A.EdgeHost, "ein")
				lab.A.Phone.Call(t, lab.B.Phone)
				if n, err := cut.host.KillTCP(cut.kill); err != nil || n == 0 {
					t.Fatalf("%d connections cut: %v", n, err)
				}
				Until(t, 5*time.Second, "the cut connections are gone", func() bool {
					n, err := cut.host.TCPConns(cut.kill)
					return err == nil && n == 0
				})
				lab.TalkFor(t, time.Second, inside)
				hangsUp.Phone.Hangup(t)
				hangsUp.Far().Phone.WaitEvent(t, "CALL_CLOSED", 10*time.Second)
				for _, e := range lab.Enterprises() {
					Until(t, 5*time.Second, "proxy "+e.Letter+" frees the call's media", func() bool { return mediaInUse(t, e.Proxy) == 0 })
				}
				inside.Stop(t)
			})
		}
	}
}
