package mapclient

import (
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const cookie = 0x2112a442

var (
	target = netip.MustParseAddrPort("203.0.113.7:5061")
	mapped = netip.MustParseAddrPort("10.1.2.3:40000")
	short  = Timers{Connect: time.Second, Response: 5 * time.Second, Idle: time.Minute}
)

// message makes a STUN message by RFC 8489, without the library that the client uses.
func message(kind uint16, id []byte, attrs ...[]byte) []byte {
	var body []byte
	for _, a := range attrs {
		body = append(body, a...)
	}
	b := binary.BigEndian.AppendUint16(nil, kind)
	b = binary.BigEndian.AppendUint16(b, uint16(len(body)+8))
	b = binary.BigEndian.AppendUint32(b, cookie)
	b = append(append(b, id...), body...)
	sum := crc32.ChecksumIEEE(b) ^ 0x5354554e
	return binary.BigEndian.AppendUint32(append(b, 0x80, 0x28, 0, 4), sum)
}

func attribute(kind uint16, value []byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, kind)
	b = binary.BigEndian.AppendUint16(b, uint16(len(value)))
	b = append(b, value...)
	return append(b, make([]byte, -len(value)&3)...)
}

func xored(kind uint16, a netip.AddrPort) []byte {
	ip := a.Addr().As4()
	v := []byte{0, 1}
	v = binary.BigEndian.AppendUint16(v, a.Port()^cookie>>16)
	return attribute(kind, binary.BigEndian.AppendUint32(v, binary.BigEndian.Uint32(ip[:])^cookie))
}

// service plays the mapping service: each request goes to answer, whose bytes go back.
func service(t *testing.T, answer func(n int, id []byte) []byte) (at netip.AddrPort, connections <-chan net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan net.Conn, 16)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := 0; ; {
			c, err := l.Accept()
			if err != nil {
				return
			}
			got <- c
			for {
				b := make([]byte, 40)
				if _, err := io.ReadFull(c, b); err != nil {
					break
				}
				want := message(0x000f, b[8:20], xored(0x0012, target))
				if string(b) != string(want) {
					t.Errorf("request %x, want %x", b, want)
				}
				n++
				if a := answer(n, b[8:20]); a == nil {
					c.Close()
				} else if _, err := c.Write(a); err != nil {
					break
				}
			}
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return l.Addr().(*net.TCPAddr).AddrPort(), got
}

func client(t *testing.T, at netip.AddrPort, x Timers) *Client {
	c := New(at, x)
	t.Cleanup(c.Close)
	return c
}

func good(_ int, id []byte) []byte { return message(0x010f, id, xored(0x0020, mapped)) }

func TestMappingsComeOverOneConnection(t *testing.T) {
	at, connections := service(t, good)
	c := client(t, at, short)
	for range 3 {
		if got, err := c.Map(context.Background(), target); err != nil || got != mapped {
			t.Fatalf("%v %v", got, err)
		}
	}
	if n := len(connections); n != 1 {
		t.Errorf("%d connections", n)
	}
}

func TestAnAnswerThatIsNone(t *testing.T) {
	wrong := func(b []byte) []byte { b[len(b)-1] ^= 1; return b }
	for name, x := range map[string]struct {
		answer func(id []byte) []byte
		want   string
	}{
		"refused": {func(id []byte) []byte {
			return message(0x011f, id, attribute(0x0009, append([]byte{0, 0, 4, 3}, "Forbidden"...)))
		}, "403 Forbidden"},
		"closed":            {func([]byte) []byte { return nil }, "EOF"},
		"no address":        {func(id []byte) []byte { return message(0x010f, id) }, "mapping service"},
		"wrong fingerprint": {func(id []byte) []byte { return wrong(message(0x010f, id, xored(0x0020, mapped))) }, "mapping service"},
		"another method":    {func(id []byte) []byte { return message(0x0101, id, xored(0x0020, mapped)) }, "another method"},
		"a request":         {func(id []byte) []byte { return message(0x000f, id, xored(0x0020, mapped)) }, "without a mapped address"},
		"no STUN":           {func([]byte) []byte { return []byte(strings.Repeat("GET / HTTP/1.1\r\n", 4)) }, "no STUN message"},
		"too long":          {func([]byte) []byte { return append([]byte{1, 15, 0xff, 0xfc}, make([]byte, 16)...) }, "no STUN message"},
	} {
		t.Run(name, func(t *testing.T) {
			at, _ := service(t, func(n int, id []byte) []byte {
				if n > 1 {
					return good(n, id)
				}
				return x.answer(id)
			})
			c := client(t, at, short)
			_, err := c.Map(context.Background(), target)
			if err == nil || !strings.Contains(err.Error(), x.want) {
				t.Errorf("%v, want %s", err, x.want)
			}
			if refused := (Refused{}); errors.As(err, &refused) != (name == "refused") {
				t.Errorf("%v", err)
			}
			if got, err := c.Map(context.Background(), target); err != nil || got != mapped { // it goes on
				t.Errorf("then %v %v", got, err)
			}
		})
	}
}

func TestATimerEndsTheWait(t *testing.T) {
	at, _ := service(t, func(int, []byte) []byte { return []byte{} })
	c := client(t, at, Timers{Connect: time.Second, Response: 20 * time.Millisecond, Idle: time.Minute})
	if _, err := c.Map(context.Background(), target); err == nil || !strings.Contains(err.Error(), "mapping response timer") {
		t.Errorf("%v", err)
	}
	ctx, done := context.WithCancel(context.Background())
	done()
	if _, err := client(t, at, short).Map(ctx, target); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if n := len(c.wait); n != 0 {
		t.Errorf("%d are still waited for", n)
	}
}

func TestAnIdleConnectionIsClosedAndOpenedAgain(t *testing.T) {
	at, connections := service(t, good)
	c := client(t, at, Timers{Connect: time.Second, Response: time.Second, Idle: 10 * time.Millisecond})
	if _, err := c.Map(context.Background(), target); err != nil {
		t.Fatal(err)
	}
	first := <-connections
	_ = first.SetReadDeadline(time.Now().Add(10 * time.Second))
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		c.mu.Lock()
		closed := c.conn == nil
		c.mu.Unlock()
		if closed {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the connection stays")
		}
	}
	c.timers.Idle = time.Minute
	if got, err := c.Map(context.Background(), target); err != nil || got != mapped {
		t.Errorf("%v %v", got, err)
	}
}

func TestRequestsThatWaitAreBounded(t *testing.T) {
	at, _ := service(t, func(int, []byte) []byte { return []byte{} })
	c := client(t, at, short)
	for i := range maximumWait {
		c.wait[[12]byte{byte(i), byte(i >> 8)}] = make(chan answer, 1)
	}
	if _, err := c.Map(context.Background(), target); err == nil || !strings.Contains(err.Error(), "too many") {
		t.Errorf("%v", err)
	}
}

func TestNobodyListens(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := l.Addr().(*net.TCPAddr).AddrPort()
	l.Close()
	if _, err := client(t, at, short).Map(context.Background(), target); err == nil || !strings.Contains(err.Error(), at.String()) {
		t.Errorf("%v", err)
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add(good(1, make([]byte, 12)))
	f.Add(message(0x011f, make([]byte, 12), attribute(0x0009, []byte{0, 0, 4, 3, 'N', 'o'})))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := next(strings.NewReader(string(b)))
		if err != nil {
			return
		}
		if a, err := decode(m); err == nil && !a.IsValid() {
			t.Error("an answer without address and error")
		}
	})
}
