package testbed

import "testing"

func TestLead(t *testing.T) {
	l := Start(t, Options{})
	r := MainJob(t, l, MainJobOptions{Talk: 3000000000})
	t.Logf("%+v", r)
	t.Log(l.A.Proxy.Log())
	t.Log(l.B.Proxy.Log())
	for _, c := range []string{"show uc-ime signaling-sessions", "show uc-ime signaling-sessions statistics", "show tls-proxy", "show conn"} {
		s, err := l.A.Proxy.Shell(c)
		t.Log(s, err)
	}
}
