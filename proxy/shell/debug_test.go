package shell

import (
	"bytes"
	"context"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"imeproxy/proxy/trace"
)

var (
	agentAddr = &net.TCPAddr{IP: net.IPv4(192, 168, 10, 30), Port: 5060}
	farAddr   = &net.TCPAddr{IP: net.IPv4(209, 165, 201, 3), Port: 5061}
)

const traceInvite = "INVITE sip:+12125550199@b.example SIP/2.0\r\nFrom: <sip:+14085550100@a.example>;tag=1\r\nTo: <sip:+12125550199@b.example>\r\nCall-ID: one@a\r\n" +
	"Content-Length: 60\r\n\r\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:c2VjcmV0c2VjcmV0\r\n"

// until runs a command that goes on until a text has come.
func until(t *testing.T, d Dialogue, line, text string, act func()) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	out := &trigger{text: text, cancel: cancel}
	acted := make(chan struct{})
	go func() {
		act()
		close(acted)
	}()
	if r, err := d.Run(ctx, line, out); err != nil || r.Exit != 0 {
		t.Errorf("%s: %v %v", line, r, err)
	}
	<-acted
	if !strings.Contains(out.String(), text) {
		t.Errorf("%s: no %q in %q", line, text, out.String())
	}
	return out.String()
}

// A call is seen as it happens, with a filter that fits it, and without its keys; another is not.
func TestDebug(t *testing.T) {
	b := newTraced(t)
	path, _ := start(t, &Server{Executor: newExecutor(b, nil, time.Now)})
	c := dial(t, path)
	happen := func(k trace.Kind) func() {
		return func() {
			for !b.hub.Wants(k) {
				time.Sleep(time.Millisecond)
			}
			b.hub.Message(agentAddr, farAddr, true, []byte(strings.Replace(traceInvite, "one@a", "two@a", 1)))
			b.hub.Message(agentAddr, farAddr, true, []byte(strings.ReplaceAll(traceInvite, "+1", "+49")))
			b.hub.Event(trace.Ticket, "one@a", "", "verified\x1b")
			b.hub.Event(trace.Fallback, "one@a", "", "bad sample")
		}
	}
	for line, x := range map[string]struct {
		kind trace.Kind
		want string
		not  []string
	}{
		"debug sip":                              {trace.SIP, "Call-ID: one@a", []string{"c2Vj"}},
		"deb sip call-id two@a":                  {trace.SIP, "Call-ID: two@a", []string{"one@a", "c2Vj"}},
		"debug sip number 492125550199":          {trace.SIP, "Call-ID: one@a", []string{"two@a"}},
		"debug sip peer 209.165.201.3":           {trace.SIP, "Call-ID: one@a", nil},
		"debug uc-ime":                           {trace.Fallback, "fallback [one@a]: bad sample\n", []string{"INVITE", "\x1b"}},
		"debug uc-ime ticket":                    {trace.Ticket, "ticket [one@a]: verified?\n", []string{"sample"}},
		"debug uc-ime fallback | include sample": {trace.Fallback, "bad sample\n", []string{"verified"}},
	} {
		got := until(t, c, line, x.want, happen(x.kind))
		for _, n := range x.not {
			if strings.Contains(got, n) {
				t.Errorf("%s shows %q:\n%s", line, n, got)
			}
		}
		if b.hub.Wants(x.kind) {
			t.Errorf("%s still looks after its end", line)
		}
	}
}

// Debug is not paged: what happens is shown as it happens.
func TestDebugIsNotPaged(t *testing.T) {
	b := newTraced(t)
	path, _ := start(t, &Server{Executor: newExecutor(b, nil, time.Now)})
	go func() {
		for !b.hub.Wants(trace.Ticket) {
			time.Sleep(time.Millisecond)
		}
		for range 20 {
			b.hub.Event(trace.Ticket, "", "", "an event")
		}
		b.hub.Event(trace.Ticket, "", "", "the last")
	}()
	if screen := atKeyboard(t, path, 5, "asa-a# ", "debug uc-ime ticket\r", "the last\r\n", "\x03", "asa-a# ", "exit\r"); strings.Contains(screen, more) {
		t.Errorf("paged:\n%q", screen)
	}
}

func TestCaptureCommands(t *testing.T) {
	b := newTraced(t)
	x := newExecutor(b, nil, time.Now)
	s := x.NewSession(Caller{})
	do := func(line string) string {
		t.Helper()
		var out bytes.Buffer
		if err := s.Run(context.Background(), line, &out); err != nil {
			return err.Error()
		}
		return out.String()
	}
	if got := do("capture calls sip number 12125550199 size 1"); got != "" {
		t.Fatalf("got %q", got)
	}
	b.hub.Message(agentAddr, farAddr, true, []byte(traceInvite))
	for end := time.Now().Add(10 * time.Second); b.store.List().Captures[0].Packets == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("nothing is captured")
		}
	}
	for _, c := range []struct{ line, want string }{
		{"capture calls sip", "is there already"},
		{"capture a.b sip", "Invalid input"},
		{"capture calls tls-keys 5", "SIP in clear"},
		{"capture x interface nosuch", "Invalid input"},
		{"show capture", "capture calls type sip number 12125550199 [Capturing - 1 packet, "},
		{"show capture calls", "192.168.10.30:5060 > 209.165.201.3:5061: INVITE sip:+12125550199@b.example SIP/2.0\n1 packet shown\n"},
		{"show capture none", "there is no capture none"},
		{"capture calls stop", ""},
		{"show capture", "[stopped - 1 packet"},
	} {
		if got := do(c.line); !strings.Contains(got, c.want) || c.want == "" && got != "" {
			t.Errorf("%s: got %q", c.line, got)
		}
	}
	if done, _ := s.Complete("no capture ca"); strings.TrimSpace(done) != "no capture calls" {
		t.Errorf("completed to %q", done)
	}
	text, err := os.ReadFile(b.dir + "/calls.pcapng")
	if err != nil || bytes.Contains(text, []byte("c2Vj")) {
		t.Errorf("a key is in the file, or there is none: %v", err)
	}
	if got := do("no capture calls"); got != "" || do("show capture") != "No captures\n" {
		t.Errorf("not removed: %q", got)
	}
}
