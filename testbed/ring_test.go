package testbed

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// Peer servers of real daemons form a ring: they enrol with a real authority, a bootstrap server lets them in, and each is told what it asks. From outside
// nothing is reachable but what the configuration says.
func TestPeerServersFormARing(t *testing.T) {
	l := Start(t, Options{NoCallAgents: true})
	r := l.StartRing(t)
	vapLines := " vapserver ucm1 interface inside authentication-mode authenticated\n vapuser ucm password correct-horse-battery\n"
	for _, e := range l.Enterprises() {
		r.Join(t, e, vapLines)
	}
	for _, e := range append(l.Enterprises(), r.Boot) {
		r.WaitHealth(t, e, "GREEN")
		Until(t, 30*time.Second, "member "+e.Letter+" knows all three", func() bool {
			s, err := e.PeerServer()
			return err == nil && s.Ring.Members == 3
		})
	}
	out, err := l.A.Proxy.Shell("show ime dht summary")
	if err != nil || !strings.Contains(out, "DHT Health....................... = GREEN") || !strings.Contains(out, "BootStrap: ") {
		t.Errorf("summary: %v\n%s", err, out)
	}
	if out, err := l.A.Proxy.Shell("utils ime fetch did +14085551112"); err != nil || !strings.Contains(out, "is not published") {
		t.Errorf("fetch did: %v\n%s", err, out)
	}
	syslog, err := l.A.UCMHost.ListenUDP(fmt.Sprintf("%s:514", l.A.UCMIP))
	if err != nil {
		t.Fatal(err)
	}
	defer syslog.Close()
	MustImeproxy(t, "shell", "--control", l.A.Proxy.Control, "-c", "configure terminal", "-c", "logging enable", "-c", "logging trap notifications",
		"-c", fmt.Sprintf("logging host inside %s", l.A.UCMIP), "-c", "end")
	// Global settings are a bootstrap server's alone, and reach every member.
	if out, err := l.A.Proxy.Shell("set ime dht global storagequota 7"); err == nil || !strings.Contains(err.Error(), "only a bootstrap server") {
		t.Errorf("storage quota set by a member: %v\n%s", err, out)
	}
	if out, err := r.Boot.Proxy.Shell("set ime dht global motd Maintenance tonight"); err != nil {
		t.Errorf("motd: %v\n%s", err, out)
	}
	for _, e := range l.Enterprises() {
		e.Proxy.proc.WaitLog(t, `alert MessageOfTheDay.*Maintenance tonight`, 30*time.Second)
	}
	syslog.SetReadDeadline(time.Now().Add(10 * time.Second))
	for told := ""; !strings.Contains(told, "Maintenance tonight"); {
		b := make([]byte, 4096)
		n, err := syslog.Read(b)
		if err != nil {
			t.Errorf("the alert did not come by syslog: %v; last: %s", err, told)
			break
		}
		if told = string(b[:n]); strings.Contains(told, "MessageOfTheDay") && !strings.HasPrefix(told, "<165>1 ") {
			t.Errorf("facility and severity of the alert: %s", told)
		}
	}
	reach := func(e *Enterprise, port int) bool {
		c, err := l.Outsider.Dial("tcp", "", fmt.Sprintf("%s:%d", e.OutsideIP, port), 2*time.Second)
		if err == nil {
			c.Close()
		}
		return err == nil
	}
	for port, want := range map[int]bool{6084: true, 8470: true, 5620: false} {
		if got := reach(l.A, port); got != want {
			t.Errorf("port %d of the outside address: reachable %t, want %t", port, got, want)
		}
	}
	c, err := l.A.UCMHost.Dial("tcp", "", fmt.Sprintf("%s:5620", l.A.InsideIP), 2*time.Second)
	if err != nil {
		t.Errorf("the call agents' port: %v", err)
	} else {
		c.Close()
	}
	// A restart keeps license, certificate and place.
	before, _ := l.A.PeerServer()
	if _, err := l.A.Proxy.Shell("write memory"); err != nil {
		t.Fatal(err)
	}
	l.A.Proxy.Stop(t)
	l.A.Proxy.Start(t)
	r.WaitHealth(t, l.A, "GREEN")
	if after, _ := l.A.PeerServer(); fmt.Sprint(after.Enrollment.PeerIDs) != fmt.Sprint(before.Enrollment.PeerIDs) {
		t.Errorf("peer IDs %v, were %v", after.Enrollment.PeerIDs, before.Enrollment.PeerIDs)
	}
	// Without the mode the ports are closed again.
	MustImeproxy(t, "shell", "--control", l.A.Proxy.Control, "-c", "configure terminal", "-c", "no peer-server", "-c", "end")
	if reach(l.A, 6084) || reach(l.A, 8470) {
		t.Error("ports of the removed peer server are open")
	}
}
