package proxy

import (
	"net/netip"
	"testing"
	"time"

	"imeproxy/proxy/config"
)

// Failed logins count as other failures do, but a call agent's address is never turned away: no call would come through.
func TestFailedLoginsCountButForCallAgents(t *testing.T) {
	agent, stranger := netip.MustParseAddr("192.168.10.30"), netip.MustParseAddr("192.168.10.99")
	now := time.Unix(1e9, 0)
	a := &Appliance{now: func() time.Time { return now }}
	p := &plan{cfg: &config.Config{ShunDuration: time.Hour}, agents: map[netip.Addr]*callAgent{agent: {}}}
	a.plan.Store(p)
	for range 2 * offenceLimit {
		a.LoginFailed(agent)
	}
	for range offenceLimit - 1 {
		a.LoginFailed(stranger)
	}
	if a.guard.offenders[agent] != nil {
		t.Error("the call agent is watched")
	}
	if !a.guard.offends(stranger, now) {
		t.Error("one more failure of the other is not one too many")
	}
}
