package sdp

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"math/big"
	"math/bits"
	"slices"
	"strconv"
	"strings"
)

// maxKeys caps the keys of one a=crypto line.
const maxKeys = 8

// maxLifetime is the largest SRTP lifetime that RFC 4568 section 6.1 allows.
const maxLifetime = 1 << 48

// Crypto is one a=crypto line (RFC 4568 section 9.1). Master, Salt, Lifetime,
// MKI and MKILen are those of the first key; a line with further keys keeps
// them in More. Keys are secret: String prints them, so it belongs on the wire
// and never in a log.
type Crypto struct {
	// Tag is 0 to 999999999, unique within a medium.
	Tag int
	// Suite is the name as written; CanonicalSuite gives the registered one.
	Suite string
	// Master and Salt are the key parts. The lengths fit the suite; with an
	// unknown suite Master holds everything and Salt nothing.
	Master, Salt []byte
	// Lifetime is in packets, 0 where the line has none.
	Lifetime uint64
	// MKI is the master key identifier, MKILen bytes long, or nil.
	MKI    []byte
	MKILen int
	// SessionParams are the parameters as written, such as "WSH=128".
	SessionParams []string
	// More are the second and further keys.
	More []KeyParam
}

// KeyParam is one inline key of an a=crypto line, with the meaning of the
// fields of Crypto.
type KeyParam struct {
	Master, Salt []byte
	Lifetime     uint64
	MKI          []byte
	MKILen       int
}

// keyLengths has master key and salt lengths in bytes of registered suites
// (RFC 4568, 5669, 6188, 7714).
var keyLengths = map[string][2]int{
	"AES_CM_128_HMAC_SHA1_80":   {16, 14},
	"AES_CM_128_HMAC_SHA1_32":   {16, 14},
	"F8_128_HMAC_SHA1_80":       {16, 14},
	"AES_192_CM_HMAC_SHA1_80":   {24, 14},
	"AES_192_CM_HMAC_SHA1_32":   {24, 14},
	"AES_256_CM_HMAC_SHA1_80":   {32, 14},
	"AES_256_CM_HMAC_SHA1_32":   {32, 14},
	"AEAD_AES_128_GCM":          {16, 12},
	"AEAD_AES_256_GCM":          {32, 12},
	"SEED_CTR_128_HMAC_SHA1_80": {16, 14},
	"SEED_128_CCM_80":           {16, 12},
	"SEED_128_GCM_96":           {16, 12},
}

// oldNames are the names that drafts of RFC 6188 used and devices still send.
var oldNames = map[string]string{
	"AES_CM_192_HMAC_SHA1_80": "AES_192_CM_HMAC_SHA1_80",
	"AES_CM_192_HMAC_SHA1_32": "AES_192_CM_HMAC_SHA1_32",
	"AES_CM_256_HMAC_SHA1_80": "AES_256_CM_HMAC_SHA1_80",
	"AES_CM_256_HMAC_SHA1_32": "AES_256_CM_HMAC_SHA1_32",
}

// CanonicalSuite is the registered upper-case name of a suite; a name that is
// not known comes back in upper case.
func CanonicalSuite(name string) string {
	name = strings.ToUpper(name)
	if n, ok := oldNames[name]; ok {
		return n
	}
	return name
}

// NewCrypto is a line with one key, without lifetime, MKI and parameters. It
// keeps master and salt, which must have the suite's lengths.
func NewCrypto(tag int, suite string, master, salt []byte) Crypto {
	return Crypto{Tag: tag, Suite: suite, Master: master, Salt: salt}
}

// ParseCrypto reads a whole line ("a=crypto:1 ...") or what follows its colon.
// Every error wraps ErrCrypto and never holds key material.
func ParseCrypto(line string) (Crypto, error) {
	line = strings.TrimSpace(line)
	if strings.HasPrefix(line, "a=") {
		name, value := attribute(line)
		if name != "crypto" {
			return Crypto{}, fmt.Errorf("%w: not a crypto attribute", ErrCrypto)
		}
		line = value
	}
	f := strings.Fields(line)
	if len(f) < 3 {
		return Crypto{}, fmt.Errorf("%w: %d fields", ErrCrypto, len(f))
	}
	tag, err := number(f[0], 0, 999999999)
	if err != nil || len(f[0]) > 9 {
		return Crypto{}, fmt.Errorf("%w: tag", ErrCrypto)
	}
	c := Crypto{Tag: tag, Suite: f[1], SessionParams: f[3:]}
	if len(c.SessionParams) == 0 {
		c.SessionParams = nil
	}
	keys := strings.Split(f[2], ";")
	if len(keys) > maxKeys {
		return Crypto{}, fmt.Errorf("%w: %d keys", ErrCrypto, len(keys))
	}
	for i, text := range keys {
		k, err := parseKey(c.Suite, text)
		if err != nil {
			return Crypto{}, err
		}
		if i > 0 {
			c.More = append(c.More, k)
			continue
		}
		c.Master, c.Salt, c.Lifetime, c.MKI, c.MKILen = k.Master, k.Salt, k.Lifetime, k.MKI, k.MKILen
	}
	return c, c.checkMKIs()
}

// checkMKIs applies RFC 4568 section 6.1: with several keys each has an MKI,
// all are of one length and differ.
func (c Crypto) checkMKIs() error {
	if len(c.More) == 0 {
		return nil
	}
	seen := [][]byte{c.MKI}
	for _, k := range c.More {
		if k.MKILen == 0 || k.MKILen != c.MKILen {
			return fmt.Errorf("%w: several keys need MKIs of one length", ErrCrypto)
		}
		if slices.ContainsFunc(seen, func(s []byte) bool { return bytes.Equal(s, k.MKI) }) {
			return fmt.Errorf("%w: repeated MKI", ErrCrypto)
		}
		seen = append(seen, k.MKI)
	}
	return nil
}

// parseKey reads inline:KEY[|LIFETIME][|MKI:LENGTH].
func parseKey(suite, text string) (KeyParam, error) {
	method, info, ok := strings.Cut(text, ":")
	if !ok || !strings.EqualFold(method, "inline") {
		return KeyParam{}, fmt.Errorf("%w: key method is not inline", ErrCrypto)
	}
	parts := strings.Split(info, "|")
	k, err := decodeKey(suite, parts[0])
	if err != nil {
		return KeyParam{}, err
	}
	rest := parts[1:]
	if len(rest) > 0 && !strings.Contains(rest[0], ":") {
		if k.Lifetime, err = parseLifetime(rest[0]); err != nil {
			return KeyParam{}, err
		}
		rest = rest[1:]
	}
	if len(rest) > 0 {
		if k.MKI, err = parseMKI(rest[0]); err != nil {
			return KeyParam{}, err
		}
		k.MKILen = len(k.MKI)
		rest = rest[1:]
	}
	if len(rest) > 0 {
		return KeyParam{}, fmt.Errorf("%w: more than lifetime and MKI after the key", ErrCrypto)
	}
	return k, nil
}

// decodeKey takes base64 with and without padding: peers send both, and a key
// refused for its padding is a call that fails.
func decodeKey(suite, text string) (KeyParam, error) {
	for range 2 {
		text = strings.TrimSuffix(text, "=")
	}
	raw, err := base64.RawStdEncoding.DecodeString(text)
	if err != nil || len(raw) == 0 {
		return KeyParam{}, fmt.Errorf("%w: key is not base64", ErrCrypto)
	}
	n, known := keyLengths[CanonicalSuite(suite)]
	if !known {
		return KeyParam{Master: raw}, nil
	}
	if len(raw) != n[0]+n[1] {
		return KeyParam{}, fmt.Errorf("%w: key has %d bytes, %s needs %d", ErrCrypto, len(raw), CanonicalSuite(suite), n[0]+n[1])
	}
	return KeyParam{Master: raw[:n[0]:n[0]], Salt: raw[n[0]:]}, nil
}

func parseLifetime(text string) (uint64, error) {
	bad := fmt.Errorf("%w: lifetime", ErrCrypto)
	if exp, ok := strings.CutPrefix(text, "2^"); ok {
		n, err := number(exp, 0, 48)
		if err != nil {
			return 0, bad
		}
		return 1 << n, nil
	}
	n, err := number(text, 1, maxLifetime)
	if err != nil {
		return 0, bad
	}
	return uint64(n), nil
}

// parseMKI reads VALUE:LENGTH, a decimal number and its length of 1 to 128
// bytes on the wire.
func parseMKI(text string) ([]byte, error) {
	bad := fmt.Errorf("%w: MKI", ErrCrypto)
	value, length, ok := strings.Cut(text, ":")
	n, err := number(length, 1, 128)
	// 2^1024 has 309 digits: no longer number can fit in 128 bytes.
	if !ok || err != nil || value == "" || len(value) > 309 || strings.Trim(value, "0123456789") != "" {
		return nil, bad
	}
	v, ok := new(big.Int).SetString(value, 10)
	if !ok || v.BitLen() > 8*n {
		return nil, bad
	}
	return v.FillBytes(make([]byte, n)), nil
}

// String is the whole line. The key is padded: some peers refuse it otherwise.
func (c Crypto) String() string {
	b := strconv.AppendInt(append(make([]byte, 0, 160), "a=crypto:"...), int64(c.Tag), 10)
	b = append(append(append(b, ' '), c.Suite...), ' ')
	b = KeyParam{c.Master, c.Salt, c.Lifetime, c.MKI, c.MKILen}.append(b)
	for _, k := range c.More {
		b = k.append(append(b, ';'))
	}
	for _, p := range c.SessionParams {
		b = append(append(b, ' '), p...)
	}
	return string(b)
}

func (k KeyParam) append(b []byte) []byte {
	var room [64]byte // more is for suites that nobody here has
	b = base64.StdEncoding.AppendEncode(append(b, "inline:"...), append(append(room[:0], k.Master...), k.Salt...))
	switch {
	case k.Lifetime == 0:
	case bits.OnesCount64(k.Lifetime) == 1:
		b = strconv.AppendInt(append(b, "|2^"...), int64(bits.TrailingZeros64(k.Lifetime)), 10)
	default:
		b = strconv.AppendUint(append(b, '|'), k.Lifetime, 10)
	}
	if len(k.MKI) > 0 {
		b = fmt.Appendf(b, "|%s:%d", new(big.Int).SetBytes(k.MKI), len(k.MKI))
	}
	return b
}

// Usable says why a line cannot key a stream that is encrypted and
// authenticated in both RTP and RTCP, or nil. RFC 4568 section 6.3: a parameter
// that is not known makes the line invalid unless it begins with "-".
func (c Crypto) Usable() error {
	if _, ok := keyLengths[CanonicalSuite(c.Suite)]; !ok {
		return fmt.Errorf("crypto suite %q is not known", c.Suite)
	}
	for _, p := range c.SessionParams {
		name, value, _ := strings.Cut(p, "=")
		switch strings.ToUpper(name) {
		case "WSH":
			// RFC 4568 section 6.3.5: a hint below 64 is not allowed.
			if _, err := number(value, 64, 1<<31); err != nil {
				return fmt.Errorf("session parameter %q is out of range", p)
			}
		case "KDR":
			if value != "0" {
				return fmt.Errorf("session parameter %q: key derivation rates are not supported", p)
			}
		case "FEC_ORDER":
			// Packets are encrypted anew here, so FEC over SRTP would break.
			if !strings.EqualFold(value, "FEC_SRTP") {
				return fmt.Errorf("session parameter %q is not supported", p)
			}
		default:
			if !strings.HasPrefix(name, "-") {
				return fmt.Errorf("session parameter %q is not supported", name)
			}
		}
	}
	return nil
}

// UsableCryptos are the medium's usable lines whose suite is among suites, in
// the order of the description. Of a line with several keys the first counts.
func (m *Media) UsableCryptos(suites []string) []Crypto {
	var out []Crypto
	for _, c := range m.Cryptos {
		suite := CanonicalSuite(c.Suite)
		same := func(s string) bool { return s == suite || CanonicalSuite(s) == suite }
		if slices.ContainsFunc(suites, same) && c.Usable() == nil {
			out = append(out, c)
		}
	}
	return out
}

// Answered is the answerer's line when the answer fits the offer (RFC 4568
// section 5.1.3): exactly one line, with tag and suite of an offered one, and
// with a key of its own. An answer that sends the offered key back is refused,
// as both directions would then share one key stream. Errors wrap ErrAnswer.
func Answered(offer []Crypto, answer Media) (Crypto, error) {
	if n := len(answer.Cryptos) + answer.BadCryptos; n != 1 || answer.BadCryptos != 0 {
		return Crypto{}, fmt.Errorf("%w: %d lines, %d of them unreadable", ErrAnswer, n, answer.BadCryptos)
	}
	got := answer.Cryptos[0]
	if err := got.Usable(); err != nil {
		return Crypto{}, fmt.Errorf("%w: %w", ErrAnswer, err)
	}
	for _, o := range offer {
		if bytes.Equal(o.Master, got.Master) {
			return Crypto{}, fmt.Errorf("%w: it holds the offered key", ErrAnswer)
		}
	}
	for _, o := range offer {
		if o.Tag != got.Tag {
			continue
		}
		if CanonicalSuite(o.Suite) != CanonicalSuite(got.Suite) {
			return Crypto{}, fmt.Errorf("%w: tag %d was offered with %s, not %s", ErrAnswer, got.Tag, o.Suite, got.Suite)
		}
		return got, nil
	}
	return Crypto{}, fmt.Errorf("%w: tag %d was not offered", ErrAnswer, got.Tag)
}
