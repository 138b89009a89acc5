package service

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/pion/stun/v3"
)

// Whatever comes, decode keeps within it, and its answer is a message that a stock library reads.
func FuzzDecode(f *testing.F) {
	f.Add(raw(0x000f, "TwelveBytes!", goodPeer...))
	f.Add(raw(0x000f, "TwelveBytes!", 0x7f, 1, 0, 1, 9, 0, 0, 0, 0x7f, 2, 0, 0))
	f.Add(raw(0x000f, "TwelveBytes!", append(bytes.Clone(goodPeer), 0x80, 0x28, 0, 4, 1, 2, 3, 4)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		size, ok := frameSize(b)
		if badFrame(b) || !ok || len(b) < size {
			return
		}
		m := decode(b[:size])
		if !m.isRequest() {
			return
		}
		answer := m.failure(m.code)
		if m.code == 0 {
			if !m.target.Addr().Is4() || m.target.Port() == 0 {
				t.Fatalf("target %s", m.target)
			}
			answer = m.success(netip.AddrPortFrom(ourAddr, 20000), 600)
		}
		out := &stun.Message{Raw: answer}
		if err := out.Decode(); err != nil || out.TransactionID != m.id || len(answer) > headerSize+maxMessage {
			t.Fatalf("answer %x: %v", answer, err)
		}
		if m.fingerprint {
			if err := stun.Fingerprint.Check(out); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// How the bytes of a stream are cut into pieces changes nothing.
func FuzzStream(f *testing.F) {
	f.Add(append(raw(0x000f, "TwelveBytes!", goodPeer...), raw(0x000f, "TwelveBytes?", goodPeer...)...), byte(3))
	f.Add([]byte("OPTIONS sip:x SIP/2.0\r\n\r\n"), byte(1))
	frames := func(data []byte, step int) (n int, bad bool) {
		var buf []byte
		for len(data) > 0 {
			k := min(step, len(data))
			buf, data = append(buf, data[:k]...), data[k:]
			for {
				if badFrame(buf) {
					return n, true
				}
				size, ok := frameSize(buf)
				if !ok || len(buf) < size {
					break
				}
				buf = buf[size:]
				n++
			}
		}
		return n, false
	}
	f.Fuzz(func(t *testing.T, data []byte, step byte) {
		n1, bad1 := frames(data, int(step)+1)
		n2, bad2 := frames(data, max(1, len(data)))
		if n1 != n2 || bad1 != bad2 {
			t.Errorf("in pieces of %d: %d %v, whole: %d %v", int(step)+1, n1, bad1, n2, bad2)
		}
	})
}

// BenchmarkRequests asks for 10,000 live mappings in turn over one connection; the target is 2,000 a second on one core.
func BenchmarkRequests(b *testing.B) {
	const live = 10_000
	r := start(b, func(_ *Options, s *Settings) { s.Quota, s.Low, s.High = live, 20000, 39999 })
	c := r.dial(agent)
	ports := make([]netip.AddrPort, live)
	for i := range live {
		ports[i] = mappedOf(b, ask(b, c, to(i)))
	}
	i := 0
	b.ResetTimer()
	for b.Loop() {
		if got := mappedOf(b, ask(b, c, to(i%live))); got != ports[i%live] {
			b.Fatalf("target %d: %s, was %s", i%live, got, ports[i%live])
		}
		i++
	}
}
