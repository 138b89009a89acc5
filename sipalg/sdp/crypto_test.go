package sdp_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"imeproxy/sipalg/sdp"
)

// b64 is a key and salt of n bytes that begin with b, without padding.
func b64(b byte, n int) string {
	k := make([]byte, n)
	for i := range k {
		k[i] = b + byte(i)
	}
	return base64.RawStdEncoding.EncodeToString(k)
}

func seq(b byte, n int) []byte {
	k, _ := base64.RawStdEncoding.DecodeString(b64(b, n))
	return k
}

const suite80 = "AES_CM_128_HMAC_SHA1_80"

func TestParseCrypto(t *testing.T) {
	k30, k28 := b64(0, 30), b64(0, 28)
	for _, tc := range []struct {
		line string
		want sdp.Crypto
	}{
		{
			"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:" + k30,
			sdp.Crypto{Tag: 1, Suite: suite80, Master: seq(0, 16), Salt: seq(16, 14)},
		},
		{
			// RFC 4568 section 9.2
			"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:PS1uQCVeeCFCanVmcjkpPywjNWhcYD0mXXtxaVBR|2^20|1:32",
			sdp.Crypto{Tag: 1, Suite: suite80, Master: []byte("=-n@%^x!Bjufr9)?"), Salt: []byte(",#5h\\`=&]{qiPQ"), Lifetime: 1 << 20, MKI: append(make([]byte, 31), 1), MKILen: 32},
		},
		{
			"A=crypto:7 x inline:" + k30, sdp.Crypto{},
		},
		{
			"a=Crypto: 123456789 aes_cm_128_hmac_sha1_32  INLINE:" + k30 + "|1048575 WSH=128 KDR=0",
			sdp.Crypto{Tag: 123456789, Suite: "aes_cm_128_hmac_sha1_32", Master: seq(0, 16), Salt: seq(16, 14), Lifetime: 1048575, SessionParams: []string{"WSH=128", "KDR=0"}},
		},
		{
			"1 AES_CM_256_HMAC_SHA1_80 inline:" + b64(0, 46) + "==|258:2",
			sdp.Crypto{Tag: 1, Suite: "AES_CM_256_HMAC_SHA1_80", Master: seq(0, 32), Salt: seq(32, 14), MKI: []byte{1, 2}, MKILen: 2},
		},
		{
			"2 AEAD_AES_128_GCM inline:" + k28, // 28 bytes want two "="
			sdp.Crypto{Tag: 2, Suite: "AEAD_AES_128_GCM", Master: seq(0, 16), Salt: seq(16, 12)},
		},
		{
			"2 AEAD_AES_128_GCM inline:" + k28 + "=",
			sdp.Crypto{Tag: 2, Suite: "AEAD_AES_128_GCM", Master: seq(0, 16), Salt: seq(16, 12)},
		},
		{
			"3 X-NEW inline:" + b64(0, 5), // lengths are not known
			sdp.Crypto{Tag: 3, Suite: "X-NEW", Master: seq(0, 5)},
		},
		{
			"1 " + suite80 + " inline:" + k30 + "|2^31|1:4;inline:" + b64(9, 30) + "|2^48|2:4",
			sdp.Crypto{
				Tag: 1, Suite: suite80, Master: seq(0, 16), Salt: seq(16, 14), Lifetime: 1 << 31, MKI: []byte{0, 0, 0, 1}, MKILen: 4,
				More: []sdp.KeyParam{{Master: seq(9, 16), Salt: seq(25, 14), Lifetime: 1 << 48, MKI: []byte{0, 0, 0, 2}, MKILen: 4}},
			},
		},
	} {
		got, err := sdp.ParseCrypto(tc.line)
		if tc.want.Suite == "" {
			if err == nil {
				t.Errorf("%s: accepted", tc.line)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", tc.line, err)
			continue
		}
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%s: %s", tc.line, diff)
		}
		again, err := sdp.ParseCrypto(got.String())
		if err != nil {
			t.Errorf("%s: printed as %s: %v", tc.line, got, err)
		} else if diff := cmp.Diff(got, again); diff != "" {
			t.Errorf("%s: printed as %s: %s", tc.line, got, diff)
		}
	}
}

func TestParseCryptoRefuses(t *testing.T) {
	k := b64(0, 30)
	for name, line := range map[string]string{
		"nothing":              "",
		"another attribute":    "a=cryptox:1 " + suite80 + " inline:" + k,
		"no key":               "1 " + suite80,
		"tag is a word":        "x " + suite80 + " inline:" + k,
		"tag of ten digits":    "0000000001 " + suite80 + " inline:" + k,
		"tag with sign":        "-1 " + suite80 + " inline:" + k,
		"method":               "1 " + suite80 + " uri:" + k,
		"no method":            "1 " + suite80 + " " + k,
		"empty key":            "1 " + suite80 + " inline:",
		"29 bytes":             "1 " + suite80 + " inline:" + b64(0, 29),
		"31 bytes":             "1 " + suite80 + " inline:" + b64(0, 31),
		"CM key for GCM":       "1 AEAD_AES_128_GCM inline:" + k,
		"three paddings":       "1 " + suite80 + " inline:" + k + "===",
		"not base64":           "1 " + suite80 + " inline:" + strings.Replace(k, "A", "*", 1),
		"lifetime 0":           "1 " + suite80 + " inline:" + k + "|0",
		"lifetime 2^49":        "1 " + suite80 + " inline:" + k + "|2^49",
		"lifetime above 2^48":  "1 " + suite80 + " inline:" + k + "|281474976710657",
		"lifetime is a word":   "1 " + suite80 + " inline:" + k + "|2^x",
		"empty lifetime":       "1 " + suite80 + " inline:" + k + "|",
		"MKI before lifetime":  "1 " + suite80 + " inline:" + k + "|1:4|2^20",
		"MKI length 0":         "1 " + suite80 + " inline:" + k + "|1:0",
		"MKI length 129":       "1 " + suite80 + " inline:" + k + "|1:129",
		"MKI does not fit":     "1 " + suite80 + " inline:" + k + "|256:1",
		"MKI is a word":        "1 " + suite80 + " inline:" + k + "|x:4",
		"MKI without value":    "1 " + suite80 + " inline:" + k + "|:4",
		"MKI of 310 digits":    "1 " + suite80 + " inline:" + k + "|" + strings.Repeat("0", 310) + ":4",
		"something after":      "1 " + suite80 + " inline:" + k + "|2^20|1:4|x",
		"two keys, no MKI":     "1 " + suite80 + " inline:" + k + ";inline:" + k,
		"two keys, one MKI":    "1 " + suite80 + " inline:" + k + "|1:1;inline:" + k + "|1:1",
		"two keys, MKI sizes":  "1 " + suite80 + " inline:" + k + "|1:1;inline:" + k + "|2:2",
		"second key is broken": "1 " + suite80 + " inline:" + k + "|1:1;inline:x|2:1",
		"nine keys":            "1 " + suite80 + " inline:" + k + strings.Repeat(";inline:"+k, 8),
	} {
		t.Run(name, func(t *testing.T) {
			c, err := sdp.ParseCrypto(line)
			if !errors.Is(err, sdp.ErrCrypto) {
				t.Fatalf("got %+v, %v", c, err)
			}
			if strings.Contains(err.Error(), k[:8]) {
				t.Errorf("error holds the key: %v", err)
			}
		})
	}
}

func TestCryptoPrintsPadding(t *testing.T) {
	c := sdp.NewCrypto(2, "AEAD_AES_256_GCM", seq(0, 32), seq(32, 12))
	want := "a=crypto:2 AEAD_AES_256_GCM inline:" + b64(0, 44) + "="
	if got := c.String(); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	c.Lifetime, c.MKI, c.SessionParams = 1000, []byte{0, 7}, []string{"WSH=64"}
	if got := c.String(); got != want+"|1000|7:2 WSH=64" {
		t.Errorf("got %s", got)
	}
}

func TestUsable(t *testing.T) {
	for params, ok := range map[string]bool{
		"": true, "WSH=64": true, "wsh=1024": true, "KDR=0": true, "FEC_ORDER=FEC_SRTP": true, "-x=1": true, "-X WSH=128": true,
		"WSH=63": false, "WSH=": false, "WSH": false, "KDR=1": false, "KDR": false, "FEC_ORDER=SRTP_FEC": false,
		"FEC_KEY=inline:" + b64(1, 30): false, "UNENCRYPTED_SRTP": false, "UNENCRYPTED_SRTCP": false, "unencrypted_srtp": false,
		"UNAUTHENTICATED_SRTP": false, "NEW=1": false, "WSH=64 NEW": false,
	} {
		c, err := sdp.ParseCrypto("1 " + suite80 + " inline:" + b64(0, 30) + " " + params)
		if err != nil {
			t.Errorf("%q: %v", params, err)
		} else if got := c.Usable(); (got == nil) != ok {
			t.Errorf("%q: %v", params, got)
		}
	}
}

func TestUsableCryptos(t *testing.T) {
	m := mustParse(t, "v=0", "m=audio 4000 RTP/SAVP 0",
		"a=crypto:4 AEAD_AES_256_GCM inline:"+b64(4, 44),
		"a=crypto:9 F8_128_HMAC_SHA1_80 inline:"+b64(5, 30),
		"a=crypto:1 AES_CM_128_HMAC_SHA1_32 inline:"+b64(1, 30),
		"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:"+b64(2, 30), // the tag again
		"a=crypto:2 AES_CM_128_HMAC_SHA1_80 inline:"+b64(2, 30)+" UNENCRYPTED_SRTP",
		"a=crypto:3 AES_CM_128_HMAC_SHA1_80 inline:"+b64(3, 29), // a byte short
		"a=crypto:5 AES_CM_256_HMAC_SHA1_80 inline:"+b64(5, 46),
		"a=crypto:6 AES_256_CM_HMAC_SHA1_32 inline:"+b64(6, 46),
		"a=crypto:7 aes_cm_128_hmac_sha1_80 inline:"+b64(7, 30),
	).Media[0]
	if m.BadCryptos != 2 {
		t.Errorf("%d bad lines", m.BadCryptos)
	}
	got := fmt.Sprint(tags(m.UsableCryptos([]string{suite80, "AES_CM_128_HMAC_SHA1_32", "AEAD_AES_256_GCM", "AES_256_CM_HMAC_SHA1_80", "AES_CM_256_HMAC_SHA1_32"})))
	if got != "[4 1 5 6 7]" {
		t.Errorf("usable tags %s", got)
	}
	if got := tags(m.UsableCryptos(nil)); len(got) != 0 {
		t.Errorf("usable without suites: %v", got)
	}
}

func tags(cs []sdp.Crypto) (out []int) {
	for _, c := range cs {
		out = append(out, c.Tag)
	}
	return out
}

func TestAnswered(t *testing.T) {
	offer := []sdp.Crypto{
		sdp.NewCrypto(1, suite80, seq(1, 16), seq(1, 14)),
		sdp.NewCrypto(2, "AES_CM_128_HMAC_SHA1_32", seq(2, 16), seq(2, 14)),
		sdp.NewCrypto(3, "AES_256_CM_HMAC_SHA1_80", seq(3, 32), seq(3, 14)),
	}
	key := b64(9, 30)
	for name, tc := range map[string]struct {
		lines []string
		tag   int // 0 = refused
	}{
		"first":                  {[]string{"1 " + suite80 + " inline:" + key}, 1},
		"second, with lifetime":  {[]string{"2 AES_CM_128_HMAC_SHA1_32 inline:" + key + "|2^31"}, 2},
		"old name":               {[]string{"3 AES_CM_256_HMAC_SHA1_80 inline:" + b64(9, 46)}, 3},
		"none":                   {nil, 0},
		"two":                    {[]string{"1 " + suite80 + " inline:" + key, "2 AES_CM_128_HMAC_SHA1_32 inline:" + key}, 0},
		"one and an unreadable":  {[]string{"1 " + suite80 + " inline:" + key, "2 x"}, 0},
		"tag not offered":        {[]string{"4 " + suite80 + " inline:" + key}, 0},
		"suite of another tag":   {[]string{"2 " + suite80 + " inline:" + key}, 0},
		"suite not offered":      {[]string{"1 AEAD_AES_128_GCM inline:" + b64(9, 28)}, 0},
		"key too short":          {[]string{"1 " + suite80 + " inline:" + b64(9, 29)}, 0},
		"not encrypted":          {[]string{"1 " + suite80 + " inline:" + key + " UNENCRYPTED_SRTP"}, 0},
		"the offered key":        {[]string{"1 " + suite80 + " inline:" + b64(1, 16) + b64(9, 14)}, 0},
		"the offered key again":  {[]string{offer[0].String()[len("a=crypto:"):]}, 0},
		"the key of another tag": {[]string{"1 " + suite80 + " inline:" + base64.StdEncoding.EncodeToString(append(seq(2, 16), seq(7, 14)...))}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			lines := []string{"v=0", "m=audio 4000 RTP/SAVP 0"}
			for _, l := range tc.lines {
				lines = append(lines, "a=crypto:"+l)
			}
			got, err := sdp.Answered(offer, *mustParse(t, lines...).Media[0])
			if tc.tag == 0 {
				if !errors.Is(err, sdp.ErrAnswer) {
					t.Errorf("got %v, %v", got.Tag, err)
				}
				return
			}
			if err != nil || got.Tag != tc.tag || !bytes.HasPrefix(got.Master, []byte{9, 10}) {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
}
