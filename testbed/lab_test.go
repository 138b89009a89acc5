package testbed

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	if err := Enter(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if err := BuildBinary(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// The lab proves itself before it judges others: phones, call agents,
// captures and tone checks work with nothing but routers between, and the
// wire check finds the plain RTP and the inside addresses of such a call.
func TestLabWithoutEdges(t *testing.T) {
	lab := Start(t, Options{A: Side{Edge: EdgeRouter}, B: Side{Edge: EdgeRouter}})
	inside := lab.Capture(t, lab.A.EdgeHost, "ein")
	internet := lab.Capture(t, lab.Internet.Host, "ea")
	lab.A.Phone.Call(t, lab.B.Phone)
	lab.TalkFor(t, 2*time.Second, inside)
	lab.A.Phone.Hangup(t)
	lab.B.Phone.WaitEvent(t, "CALL_CLOSED", 10*time.Second)
	inside.Stop(t)
	internet.Stop(t)

	for _, e := range lab.Enterprises() {
		tone := e.Phone.LastTone(t)
		if math.Abs(tone.Hz-float64(e.Far().Phone.Tone)) > 5 || tone.Share < 0.95 || tone.GapTotal() > 100*time.Millisecond {
			t.Errorf("phone %s heard %+v, want %d Hz", e.Letter, tone, e.Far().Phone.Tone)
		}
	}
	var heard int
	for _, s := range internet.Streams(t) {
		audio, err := Analyze(s.Audio())
		if err != nil {
			t.Fatal(err)
		}
		if s.Src.Addr() == lab.A.PhoneIP && math.Abs(audio.Hz-440) < 3 && s.Lost() == 0 {
			heard++
		}
	}
	if heard != 1 {
		t.Errorf("%d streams from A with its tone in the capture, want 1", heard)
	}
	r := CheckWire(internet.Packets(t), [][]Packet{inside.Packets(t)}, internet.TCPMessages(t), lab.A.Inside)
	if r.PlainRTP < 100 || r.SRTP > 0 || len(r.Unexpected) == 0 || len(r.InsideAddresses) == 0 || r.OK() {
		t.Errorf("the wire check misses what is in the clear: %+v", r)
	}
}

// Two edges of other make talk to each other: what the proxy will meet works
// by itself, and the wire check has nothing to say against SRTP.
func TestForeignEdges(t *testing.T) {
	lab := Start(t, Options{A: Side{Edge: EdgeForeign}, B: Side{Edge: EdgeForeign}})
	insideA := lab.Capture(t, lab.A.EdgeHost, "ein")
	insideB := lab.Capture(t, lab.B.EdgeHost, "ein")
	internet := lab.Capture(t, lab.Internet.Host, "ea")
	lab.A.Phone.Call(t, lab.B.Phone)
	lab.TalkFor(t, 2*time.Second, insideA, insideB)
	lab.B.Phone.Hangup(t)
	lab.A.Phone.WaitEvent(t, "CALL_CLOSED", 10*time.Second)
	for _, c := range []*Capture{insideA, insideB, internet} {
		c.Stop(t)
	}
	for _, e := range lab.Enterprises() {
		if tone := e.Phone.LastTone(t); math.Abs(tone.Hz-float64(e.Far().Phone.Tone)) > 5 || tone.Share < 0.95 {
			t.Errorf("phone %s heard %+v, want %d Hz", e.Letter, tone, e.Far().Phone.Tone)
		}
	}
	r := CheckWire(internet.Packets(t), [][]Packet{insideA.Packets(t), insideB.Packets(t)}, nil, lab.A.Inside, lab.B.Inside)
	if !r.OK() || r.SRTP < 100 || r.TLS == 0 {
		t.Errorf("wire: %+v", r)
	}
	if !strings.Contains(lab.B.Edge.Log(), "verified=1") {
		t.Errorf("edge B did not verify the certificate of A:\n%s", lab.B.Edge.Log())
	}
}

// Decryption with a key log is what later shows the proxies' messages: here
// both ends of a TLS connection are known.
func TestCaptureDecryptsTLS(t *testing.T) {
	lab := Start(t, Options{A: Side{Edge: EdgeRouter}, B: Side{Edge: EdgeRouter}, NoCallAgents: true})
	id, err := lab.CA.Issue("server", EdgeCert("b.example"))
	if err != nil {
		t.Fatal(err)
	}
	ln, err := lab.B.EdgeHost.Listen("209.165.201.3:5070")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	const msg = "OPTIONS sip:b.example SIP/2.0\r\nVia: SIP/2.0/TLS 192.168.10.30\r\nl: 4\r\nX: a\r\n b\r\n\r\nbody"
	got := make(chan string, 1)
	go func() {
		conn, err := ln.Accept()
		if err != nil {
			got <- err.Error()
			return
		}
		defer conn.Close()
		b, err := io.ReadAll(tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{id.TLS}}))
		got <- fmt.Sprint(string(b), err)
	}()
	capture := lab.Capture(t, lab.Internet.Host, "eo")
	keyLog := filepath.Join(lab.Dir, "keys")
	keys, err := os.Create(keyLog)
	if err != nil {
		t.Fatal(err)
	}
	defer keys.Close()
	raw, err := lab.Outsider.Dial("tcp", "", "209.165.201.3:5070", 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	cfg := lab.CA.TLSConfig(nil, "b.example")
	cfg.KeyLogWriter = keys
	conn := tls.Client(raw, cfg)
	w := bufio.NewWriter(conn)
	fmt.Fprint(w, "\r\n\r\n", msg, msg)
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if text := <-got; strings.Count(text, "OPTIONS") != 2 {
		t.Fatalf("server read %q", text)
	}
	capture.Stop(t)
	msgs := capture.TLSMessages(t, keyLog)
	if len(msgs) != 2 {
		t.Fatalf("%d messages decrypted, want 2: %+v", len(msgs), msgs)
	}
	m := msgs[1]
	if m.Raw != msg || m.Method() != "OPTIONS" || m.Get("x") != "a b" || m.Body != "body" || m.Dst.Addr() != netip.MustParseAddr("209.165.201.3") {
		t.Errorf("message is %+v", m)
	}
	if r := CheckWire(capture.Packets(t), nil, msgs, lab.A.Inside); len(r.InsideAddresses) != 2 || len(r.Unexpected) != 0 {
		t.Errorf("wire: %+v, want the inside address of both messages", r)
	}
}

func TestHiddenIn(t *testing.T) {
	inside := netip.MustParsePrefix("192.168.10.0/24")
	for text, want := range map[string]int{
		"Via: SIP/2.0/TCP 192.168.10.30:5070": 1,
		"sip:x@192-168-10-30.example":         1,
		"token=c0a80a1e;":                     1,
		"token=C0A80A1E;":                     1,
		"o=- 3232238110 1 IN IP4 203.0.113.1": 1,
		"192.168.20.30 209.165.200.227":       0,
		"tag=00c0a80a1e11":                    0,
	} {
		if got := HiddenIn(text, inside); len(got) != want {
			t.Errorf("%q: %v, want %d", text, got, want)
		}
	}
}

// Named labs replace each other, and a closed lab leaves no namespace.
func TestLabLeavesNothing(t *testing.T) {
	names := func() string {
		var b strings.Builder
		entries, err := os.ReadDir("/run/netns")
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), fmt.Sprintf("ime-t%d-", os.Getpid())) {
				b.WriteString(e.Name() + "\n")
			}
		}
		return b.String()
	}
	o := Options{Name: fmt.Sprintf("t%d", os.Getpid()), NoStart: true}
	t.Run("lab", func(t *testing.T) {
		first := Start(t, o)
		p, err := first.Outsider.Start("sleeper", StartOptions{}, "sleep", "600")
		if err != nil {
			t.Fatal(err)
		}
		if err := Remove(o.Name); err != nil {
			t.Fatal(err)
		}
		if err := p.Wait(5 * time.Second); err == nil {
			t.Error("a process of the removed lab ended in peace")
		}
		if left := names(); left != "" {
			t.Errorf("left after Remove:\n%s", left)
		}
		first.hosts = nil
		Start(t, o)
		if names() == "" {
			t.Error("no namespace has the lab's name")
		}
	})
	if left := names(); left != "" {
		t.Errorf("left at the end:\n%s", left)
	}
}
