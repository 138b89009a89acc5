package ring

import (
	"bytes"
	"errors"
	"io"
	"os"
	"testing"
	"time"
)

// A push/pull announces how many members and bytes follow, for which memberlist takes memory at once.
func TestSyncsThatAnnounceTooMuch(t *testing.T) {
	b, boot := newBench(t)
	v := newLeft(t, b, boot, "villain")
	header := func(nodes, state int) []byte {
		return packed(mlPushPull, "Nodes", nodes, "UserStateLen", state, "Join", false)
	}
	short := func(b []byte) []byte { // names as memberlist writes them
		for _, name := range []string{"Nodes", "UserStateLen", "Join"} {
			b = bytes.Replace(b, append([]byte{0xda, 0, byte(len(name))}, name...), append([]byte{0xa0 | byte(len(name))}, name...), 1)
		}
		return b
	}
	for _, x := range []struct {
		what     string
		b        []byte
		answered bool
	}{
		{"as memberlist does", short(header(0, 0)), true},
		{"a million members", short(header(1<<20, 0)), false},
		{"members less than none", append(short(header(0, 0))[:2], "\xa5Nodes\xd1\x80\x00\xacUserStateLen\x00\xa4Join\xc2"...), false},
		{"20 MiB of state", short(header(0, 20<<20)), false},
		{"names in a longer form", header(0, 0), false},
		{"fields missing", packed(mlPushPull, "Nodes", 0), false},
	} {
		c := v.dial(t, b.boot, alpnSync)
		if _, err := c.Write(x.b); err != nil {
			t.Fatal(err)
		}
		if err := c.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
			t.Fatal(err)
		}
		var first [1]byte
		_, err := c.Read(first[:])
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("%s: neither an answer nor an end", x.what)
		}
		if answered := err == nil && first[0] == mlPushPull; answered != x.answered {
			t.Errorf("%s: answered %t (%x), want %t", x.what, answered, first, x.answered)
		}
		c.Close()
	}
}

// readHead takes nothing from the stream that it does not hand on.
func FuzzReadHead(f *testing.F) {
	for _, s := range []string{
		"\x06\x83\xa4Join\xc3\xa5Nodes\x03\xacUserStateLen\xd1\x01\x00rest", "\x06\x83\xa5Nodes\xce\x00\x10\x00\x00", "\x00rest", "\x09", "\x06\x83\xa5Nodes\x01\xa5Nodes\x01\xa4Join\xc2", "",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		got, nodes, err := readHead(r)
		if err != nil {
			return
		}
		rest, _ := io.ReadAll(r)
		if whole := append(bytes.Clone(got), rest...); !bytes.Equal(whole, b) {
			t.Errorf("%x became %x", b, whole)
		}
		if nodes < 0 || nodes > maxSynced {
			t.Errorf("%d members are announced", nodes)
		}
		if got[0] == mlPushPull && len(got) > 64 {
			t.Errorf("a head of %d bytes", len(got))
		}
	})
}
