package mediaterm

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestSuiteSizes(t *testing.T) {
	// RFC 4568 section 6.2 and RFC 7714 section 14.2, in bytes.
	want := map[Suite][2]int{
		"AES_CM_128_HMAC_SHA1_80": {16, 14}, "AES_CM_128_HMAC_SHA1_32": {16, 14},
		"AEAD_AES_128_GCM": {16, 12}, "AEAD_AES_256_GCM": {32, 12}, "NULL": {0, 0},
	}
	for s, w := range want {
		if k, n := s.KeyLen(); k != w[0] || n != w[1] {
			t.Errorf("%s: %d, %d", s, k, n)
		}
	}
	if len(Suites()) != 4 || Suites()[0] != "AES_CM_128_HMAC_SHA1_80" {
		t.Errorf("suites %v", Suites())
	}
}

func TestNewKey(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range Suites() {
		for range 10 {
			k := mustKey(t, s)
			if err := k.Check(); err != nil {
				t.Error(err)
			}
			if seen[string(k.Master)] || bytes.Equal(k.Master[:12], k.Salt[:12]) {
				t.Error("keys repeat")
			}
			seen[string(k.Master)] = true
		}
	}
	if _, err := NewKey("AES_192"); !errors.Is(err, ErrBadKey) {
		t.Errorf("unknown suite: %v", err)
	}
}

// However a key is printed, logged or encoded, its material does not show.
func TestKeyIsNeverPrinted(t *testing.T) {
	k := Key{Suite: SuiteCM80, Master: []byte("0123456789abcdef"), Salt: []byte("ghijklmnopqrst")}
	var out strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o"} {
		fmt.Fprintf(&out, verb+" "+verb+" "+verb+"\n", k, &k, struct{ K *Key }{&k}.K)
		fmt.Fprintf(&out, verb+"\n", []Key{k})
	}
	log := slog.New(slog.NewJSONHandler(&out, nil))
	log.Info("key", "key", k, "pointer", &k, "in", map[string]Key{"k": k})
	slog.New(slog.NewTextHandler(&out, nil)).Info("key", "key", k, "pointer", &k)
	data, err := json.Marshal(map[string]any{"key": k, "pointer": &k})
	if err != nil {
		t.Fatal(err)
	}
	out.Write(data)
	text := out.String()
	for _, secret := range []string{
		"456789ab", "ijklmno", "NDU2Nzg5", hex.EncodeToString(k.Master[4:8]), strings.ToUpper(hex.EncodeToString(k.Salt[4:8])),
		"52 53 54", "64 65 66",
	} {
		if strings.Contains(text, secret) {
			t.Errorf("key material %q shows in %s", secret, text)
		}
	}
	if !strings.Contains(text, "AES_CM_128_HMAC_SHA1_80 *****") || (Key{}).String() != "no key" {
		t.Errorf("masked form missing: %s", text)
	}
}

// The caller may wipe its key once SetCrypto has returned.
func TestKeyIsCopied(t *testing.T) {
	k := mustKey(t, SuiteCM80)
	given := k.clone()
	l := newLoop(t, k)
	if err := l.tx.setCrypto(Outside, &given, nil); err != nil {
		t.Fatal(err)
	}
	clear(given.Master)
	again := k.clone()
	if err := l.tx.setCrypto(Outside, &again, nil); err != nil {
		t.Fatal(err)
	}
	if n := l.tx.legs[Outside].tx.kept; n != 1 {
		t.Errorf("the same key is kept %d times", n)
	}
}
