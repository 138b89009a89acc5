package pvp

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"

	"github.com/cloudflare/circl/group"
)

type cpaceVectors struct {
	Run    map[string]string
	Points struct {
		Valid map[string]string
		Y1    string `json:"Invalid Y1"`
		Y2    string `json:"Invalid Y2"`
	}
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil || s == "" {
		t.Fatalf("vector %q: %v", s, err)
	}
	return b
}

func vectors(t *testing.T) cpaceVectors {
	t.Helper()
	text, err := os.ReadFile("testdata/cpace-ristretto255-sha512.json")
	if err != nil {
		t.Fatal(err)
	}
	var v cpaceVectors
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func scalar(t *testing.T, hex string) group.Scalar {
	t.Helper()
	s := group.Ristretto255.NewScalar()
	if err := s.UnmarshalBinary(unhex(t, hex)); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestCPaceVectorsOfTheDraft(t *testing.T) {
	v := vectors(t).Run
	prs, ci, sid := unhex(t, v["PRS"]), unhex(t, v["CI"]), unhex(t, v["sid"])
	g := encode(generator(prs, ci, sid))
	if want := unhex(t, v["g"]); !bytes.Equal(g[:], want) {
		t.Fatalf("generator %x, want %x", g, want)
	}
	a, b := shareOf(scalar(t, v["ya"]), prs, ci, sid), shareOf(scalar(t, v["yb"]), prs, ci, sid)
	if want := unhex(t, v["Ya"]); !bytes.Equal(a.public[:], want) {
		t.Fatalf("Ya %x, want %x", a.public, want)
	}
	if want := unhex(t, v["Yb"]); !bytes.Equal(b.public[:], want) {
		t.Fatalf("Yb %x, want %x", b.public, want)
	}
	for name, side := range map[string]struct {
		own   share
		other [pointSize]byte
	}{"initiator": {a, b.public}, "responder": {b, a.public}} {
		p, err := decodePoint(side.other[:])
		if err != nil {
			t.Fatal(err)
		}
		k := side.own.secret(p)
		if want := unhex(t, v["K"]); !bytes.Equal(k[:], want) {
			t.Fatalf("%s has K %x, want %x", name, k, want)
		}
		keys := deriveKeys(sid, k, a.public, unhex(t, v["ADa"]), b.public, unhex(t, v["ADb"]))
		if want := unhex(t, v["ISK_IR"]); !bytes.Equal(keys.isk[:], want) {
			t.Fatalf("%s has ISK %x, want %x", name, keys.isk, want)
		}
	}
}

// The draft's verification tests: what does not decode, and the neutral element, are refused.
func TestPointsOfTheDraft(t *testing.T) {
	v := vectors(t).Points
	p, err := decodePoint(unhex(t, v.Valid["X"]))
	if err != nil {
		t.Fatal(err)
	}
	got := share{scalar: scalar(t, v.Valid["s"])}.secret(p)
	if want := unhex(t, v.Valid["G.scalar_mult_vfy(s,X)"]); !bytes.Equal(got[:], want) {
		t.Fatalf("product %x, want %x", got, want)
	}
	for _, bad := range [][]byte{unhex(t, v.Y1), unhex(t, v.Y2), nil, make([]byte, 31), bytes.Repeat([]byte{0xff}, 32)} {
		if _, err := decodePoint(bad); err == nil {
			t.Errorf("%x was taken for a point", bad)
		}
	}
}

func TestLengthsOfTheDraft(t *testing.T) {
	got := lv([]byte("1234"), []byte("5"), nil, []byte("678"))
	if want := unhex(t, "043132333401350003363738"); !bytes.Equal(got, want) {
		t.Fatalf("lv_cat %x, want %x", got, want)
	}
	long := make([]byte, 128)
	if got := prependLen(nil, long); got[0] != 0x80 || got[1] != 0x01 || len(got) != 130 {
		t.Fatalf("prepend_len of 128 bytes begins %x and has %d bytes", got[:2], len(got))
	}
}
