package testbed

import (
	"strings"
	"testing"
	"time"
)

// A stranger who fails too often is turned away by itself, and let in by hand again; an enterprise that makes calls is not touched, also when it fails.
func TestStrangersAreShunned(t *testing.T) {
	s := StartStubs(t, func(o *Options) {
		o.A.Config = func(text string) string { return text + "threat-detection scanning-threat shun duration 60\n" }
	})
	far, agent := s.CallIn(t)
	agent.Transact(t, far, "BYE", 200)
	stranger, trunk := s.Internet.Host, s.Trunk().String()
	garbage := func(h *Host) error {
		local := ""
		if h == s.B.EdgeHost {
			local = s.Far.Addr.Addr().String() // from where the enterprise makes its calls
		}
		c, err := h.Dial("tcp", local, trunk, time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		if _, err := c.Write([]byte("GET / HTTP/1.0\r\n\r\n")); err != nil {
			return err
		}
		_ = c.SetReadDeadline(time.Now().Add(2 * time.Second))
		_, _ = c.Read(make([]byte, 100)) // its alert, or its end
		return nil
	}
	shunned := func() string {
		t.Helper()
		out, err := s.Proxy.Shell("show shun")
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	for i := range 19 {
		for _, h := range []*Host{stranger, s.B.EdgeHost} {
			if err := garbage(h); err != nil {
				t.Fatalf("failure %d: %v", i, err)
			}
		}
	}
	if out := shunned(); out != "No shuns\n" {
		t.Errorf("too early: %s", out)
	}
	_ = garbage(stranger)
	for range 5 {
		_ = garbage(s.B.EdgeHost)
	}
	Until(t, wait, "the stranger is shunned", func() bool { return strings.Contains(shunned(), " for 0:00:5") })
	if out := shunned(); strings.Count(out, "shun ") != 1 || strings.Contains(out, s.Far.Addr.Addr().String()) {
		t.Errorf("shunned are\n%s", out)
	}
	if err := garbage(stranger); err == nil {
		t.Error("the stranger still gets through")
	}
	far, agent = s.CallIn(t)
	agent.Transact(t, far, "BYE", 200)
	s.Proxy.Says(t, "source shunned: it failed too often")
	source := strings.Fields(shunned())[1]
	if out, err := s.Proxy.Shell("no shun " + source); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	if err := garbage(stranger); err != nil || shunned() != "No shuns\n" {
		t.Errorf("let in again: %v", err)
	}
}
