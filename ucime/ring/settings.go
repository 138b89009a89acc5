package ring

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"
	"unicode/utf8"

	"imeproxy/ucime/learn"
)

const (
	settingsMax   = 16384
	motdMax       = 512
	maxBootstraps = 16
	maxBanned     = 256
	maxQuota      = 1_000_000
	maxHashCost   = 100_000
)

// BootstrapServer is one of the ring's authorities.
type BootstrapServer struct {
	Name learn.PeerID
	SPKI []byte // SubjectPublicKeyInfo of its certificate
}

// Settings are the same for the whole ring; bootstrap servers alone change them.
type Settings struct {
	Sequence        uint64 // the Unix second of the change, but always more than before
	Bootstrap       learn.PeerID
	StorageQuota    uint32 // numbers for each peer ID, 1 to 1,000,000
	RequiredVersion uint32 // 0: any
	FailedReads     uint32 // look-ups without a result, for each peer ID and hour in the whole ring
	HashCost        uint32 // rounds of PBKDF2 for a number, 1 to 100,000
	Key, PrevKey    [32]byte
	MOTD            string // message of the day, 512 bytes at most
	Bootstraps      []BootstrapServer
	Banned          []learn.PeerID
	signature       []byte
}

// DefaultSettings returns those of a new ring, with a hash key of its own. A bootstrap server must keep them: a ring whose
// key changes has to be published anew.
func DefaultSettings() Settings {
	s := Settings{StorageQuota: 1000, FailedReads: 3600, HashCost: 8192}
	rand.Read(s.Key[:]) // never fails
	return s
}

// Check says what is wrong with s.
func (s *Settings) Check() error {
	switch {
	case s.StorageQuota < 1 || s.StorageQuota > maxQuota:
		return fmt.Errorf("storage quota %d is not within 1 to %d", s.StorageQuota, maxQuota)
	case s.HashCost < 1 || s.HashCost > maxHashCost:
		return fmt.Errorf("hash cost %d is not within 1 to %d", s.HashCost, maxHashCost)
	case len(s.MOTD) > motdMax || !utf8.ValidString(s.MOTD):
		return fmt.Errorf("message of the day has %d bytes, %d of UTF-8 at most", len(s.MOTD), motdMax)
	case len(s.Bootstraps) > maxBootstraps:
		return fmt.Errorf("%d bootstrap servers, %d at most", len(s.Bootstraps), maxBootstraps)
	case len(s.Banned) > maxBanned:
		return fmt.Errorf("%d banned peer IDs, %d at most: revoke certificates instead", len(s.Banned), maxBanned)
	case s.Key == [32]byte{}:
		return errors.New("no hash key")
	}
	return nil
}

func (s *Settings) signed() []byte {
	b := binary.BigEndian.AppendUint64([]byte{1}, s.Sequence)
	b = append(b, s.Bootstrap[:]...)
	for _, v := range []uint32{s.StorageQuota, s.RequiredVersion, s.FailedReads, s.HashCost} {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	b = append(append(b, s.Key[:]...), s.PrevKey[:]...)
	b = put16(b, []byte(s.MOTD))
	b = append(b, uint8(len(s.Bootstraps)))
	for _, x := range s.Bootstraps {
		b = put8(append(b, x.Name[:]...), x.SPKI)
	}
	b = binary.BigEndian.AppendUint16(b, uint16(len(s.Banned)))
	for _, p := range s.Banned {
		b = append(b, p[:]...)
	}
	return b
}

func (s *Settings) encode() []byte { return put8(s.signed(), s.signature) }

func decodeSettings(b []byte) (*Settings, error) {
	if len(b) > settingsMax {
		return nil, fmt.Errorf("settings: %w", errSize)
	}
	r := reader{b: b}
	r.version()
	s := &Settings{Sequence: r.u64(), Bootstrap: r.peer()}
	for _, v := range []*uint32{&s.StorageQuota, &s.RequiredVersion, &s.FailedReads, &s.HashCost} {
		*v = r.u32()
	}
	copy(s.Key[:], r.take(32))
	copy(s.PrevKey[:], r.take(32))
	s.MOTD = string(r.bytes16())
	for n := r.u8(); n > 0 && r.err == nil; n-- {
		s.Bootstraps = append(s.Bootstraps, BootstrapServer{r.peer(), r.bytes8()})
	}
	for n := r.u16(); n > 0 && r.err == nil; n-- {
		s.Banned = append(s.Banned, r.peer())
	}
	s.signature = r.bytes8()
	err := r.end()
	if err == nil {
		err = s.Check()
	}
	if err != nil {
		return nil, fmt.Errorf("settings: %w", err)
	}
	return s, nil
}

// newer says whether s replaces old. Two bootstrap servers may change settings in one second without knowing of each other: the
// higher name counts, everywhere, or the ring would stay of two minds.
func (s *Settings) newer(old *Settings) bool {
	return old == nil || s.Sequence > old.Sequence || s.Sequence == old.Sequence && comparePeers(s.Bootstrap, old.Bootstrap) > 0
}

// bans says whether one of the peer IDs is banned, and with it the certificate that names it.
func (s *Settings) bans(peers []learn.PeerID) bool {
	return s != nil && slices.ContainsFunc(peers, func(p learn.PeerID) bool { return slices.Contains(s.Banned, p) })
}

// Barred says why the holder of a certificate of the ring may have no dealings with us: the ring has banned one of the peer IDs that it names, or nobody can tell
// because no settings of the ring are known yet. nil where it may. That the certificate is good is another question.
func (r *Ring) Barred(cert *x509.Certificate) error {
	ids, err := r.n.id.PeerIDs(cert)
	if err != nil {
		return fmt.Errorf("peer IDs of the certificate: %w", err)
	}
	r.n.mu.Lock()
	defer r.n.mu.Unlock()
	switch {
	case r.n.settings == nil:
		return errors.New("the ring's settings are not known yet, and with them who is banned")
	case r.n.settings.bans(ids):
		return fmt.Errorf("%s is banned from the ring", ids[0])
	}
	return nil
}

func (s *Settings) clone() *Settings {
	c := *s
	c.Bootstraps, c.Banned = slices.Clone(s.Bootstraps), slices.Clone(s.Banned)
	return &c
}

// token is a bootstrap server's sign of life.
type token struct {
	bootstrap learn.PeerID
	sequence  uint64 // Unix second
	made      time.Time
	settings  uint64 // sequence of the settings it has
	peers     uint32 // peer IDs it counts
	signature []byte
}

func (t *token) signed() []byte {
	b := append([]byte{1}, t.bootstrap[:]...)
	b = putTime(binary.BigEndian.AppendUint64(b, t.sequence), t.made)
	b = binary.BigEndian.AppendUint64(b, t.settings)
	return binary.BigEndian.AppendUint32(b, t.peers)
}

func (t *token) encode() []byte { return put8(t.signed(), t.signature) }

func decodeToken(b []byte) (*token, error) {
	r := reader{b: b}
	r.version()
	t := &token{bootstrap: r.peer(), sequence: r.u64(), made: r.time(), settings: r.u64(), peers: r.u32()}
	t.signature = r.bytes8()
	if err := r.end(); err != nil {
		return nil, fmt.Errorf("token: %w", err)
	}
	return t, nil
}

// trusted is a bootstrap server whose key is known.
type trusted struct {
	spki string
	key  crypto.PublicKey
}

func trust(spki []byte) (trusted, error) {
	key, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		return trusted{}, fmt.Errorf("key of a bootstrap server: %w", err)
	}
	return trusted{string(spki), key}, usableKey(key)
}
