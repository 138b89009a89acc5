package tlsproxy

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Store is the state directory: key pairs, trustpoints and their certificates. It is safe for concurrent use; several
// processes may have the same directory open (the daemon and the command line), a change of one is seen by the others within a second.
type Store struct {
	dir stateDir
	now func() time.Time
	// changing serializes changes and reloads of this process; snap is what handshakes use and is replaced as a whole.
	changing  sync.Mutex
	snap      atomic.Pointer[snapshot]
	lastCheck atomic.Int64
	lastErr   atomic.Pointer[error]
}

// TrustpointSpec is a trustpoint as configured: Enrollment "terminal" or "self" (empty = terminal), X.500 subject name, FQDN, key label (empty = the trustpoint's name).
type TrustpointSpec struct{ Name, Enrollment, SubjectName, FQDN, KeyPair string }

// Identity is what the appliance presents for a trustpoint. It is shared: do not change it.
type Identity struct {
	Certificate tls.Certificate // Leaf is set; intermediates included
	Names       []string        // SIP domains of the certificate, see [Domains]
}

// snapshot is one immutable reading of the directory.
type snapshot struct {
	stamp       stamp
	trustpoints map[string]*trustpoint
	anchors     *anchors
}

// trustpoint is one folder below trustpoints. idErr and caErr say why a file could not be used.
type trustpoint struct {
	name          string
	meta          meta
	key           crypto.Signer
	leaf          *x509.Certificate
	chain         []*x509.Certificate
	authenticated []*x509.Certificate
	bundled       []*x509.Certificate
	request       *x509.CertificateRequest // waits for its certificate
	idErr, caErr  error

	// Linking the chain checks its signatures, and the identity is asked for with every ticket: once is enough.
	linked   sync.Once
	identity *Identity
}

// meta remembers how a trustpoint was enrolled, so that a certificate can be imported before any configuration exists.
type meta struct {
	KeyPair     string `json:"key_pair,omitempty"`
	Enrollment  string `json:"enrollment,omitempty"`
	SubjectName string `json:"subject_name,omitempty"`
	FQDN        string `json:"fqdn,omitempty"`
}

// OpenStore opens the state directory and makes it (mode 0700) when it is not there. A trustpoint whose files are damaged
// does not prevent opening: the error comes with its use, so that a new import can repair it.
func OpenStore(dir string) (*Store, error) { return OpenStoreWithClock(dir, time.Now) }

// OpenStoreWithClock is [OpenStore] with the clock that decides what has expired.
func OpenStoreWithClock(dir string, now func() time.Time) (*Store, error) {
	if dir == "" {
		return nil, fmt.Errorf("%w: no state directory given", ErrName)
	}
	s := &Store{dir: stateDir(dir), now: now}
	if err := s.dir.create(); err != nil {
		return nil, err
	}
	unlock, err := s.dir.lock(unix.LOCK_SH, lockPatience)
	if err != nil {
		return nil, err
	}
	defer unlock()
	snap, err := s.load(nil)
	if snap == nil {
		return nil, err
	}
	s.note(err)
	s.snap.Store(snap)
	return s, nil
}

// Reload reads the directory again. New handshakes use what it found; standing connections are untouched. Where a file is damaged,
// what was in use before stays in use and the error says which file.
func (s *Store) Reload() error {
	s.changing.Lock()
	defer s.changing.Unlock()
	unlock, err := s.dir.lock(unix.LOCK_SH, lockPatience)
	if err != nil {
		return err
	}
	defer unlock()
	return s.reloadLocked()
}

// reloadLocked needs changing and a lock of the directory.
func (s *Store) reloadLocked() error {
	snap, err := s.load(s.snap.Load())
	if snap != nil {
		s.snap.Store(snap)
	}
	s.note(err)
	return err
}

// LastReloadError is the outcome of the last reading of the directory, those included that a handshake caused.
func (s *Store) LastReloadError() error {
	if p := s.lastErr.Load(); p != nil {
		return *p
	}
	return nil
}

func (s *Store) note(err error) { s.lastErr.Store(&err) }

// current returns what is on disk: one stat of the generation file, at most once a second; a changed one is read by the first caller who notices.
func (s *Store) current() *snapshot {
	now, last := s.now().UnixNano(), s.lastCheck.Load()
	if now-last < int64(time.Second) && now >= last || !s.lastCheck.CompareAndSwap(last, now) {
		return s.snap.Load()
	}
	if s.dir.stamp() != s.snap.Load().stamp {
		if err := s.Reload(); err != nil {
			s.note(err)
		}
	}
	return s.snap.Load()
}

// load reads everything. A nil snapshot means that the directory itself cannot be read. Damaged parts are taken from old.
func (s *Store) load(old *snapshot) (*snapshot, error) {
	snap := &snapshot{stamp: s.dir.stamp(), trustpoints: map[string]*trustpoint{}}
	entries, err := os.ReadDir(s.dir.path("trustpoints"))
	if err != nil {
		return nil, fmt.Errorf("read state directory: %w", err)
	}
	var problems []error
	for _, e := range entries {
		name, ok := nameOfFile(e.Name())
		if !ok || !e.IsDir() {
			continue
		}
		tp := s.loadTrustpoint(name)
		problems = append(problems, tp.idErr, tp.caErr)
		if old != nil && old.trustpoints[name] != nil {
			tp.keepFrom(old.trustpoints[name])
		}
		snap.trustpoints[name] = tp
	}
	snap.anchors = snap.anchorsOf(nil)
	return snap, errors.Join(problems...)
}

func (tp *trustpoint) keepFrom(old *trustpoint) {
	if tp.idErr != nil && old.leaf != nil {
		tp.key, tp.leaf, tp.chain, tp.idErr = old.key, old.leaf, old.chain, nil
	}
	if tp.caErr != nil && len(old.authenticated)+len(old.bundled) > 0 {
		tp.authenticated, tp.bundled, tp.caErr = old.authenticated, old.bundled, nil
	}
}

func (s *Store) loadTrustpoint(name string) *trustpoint {
	tp := &trustpoint{name: name}
	if data, err := s.dir.read(s.dir.trustpointFile(name, "meta.json")); err == nil && data != nil {
		// A damaged meta file costs the remembered key label alone; the identity stands by itself.
		_ = json.Unmarshal(data, &tp.meta)
	}
	if data, err := s.dir.read(s.dir.trustpointFile(name, "identity.pem")); err != nil {
		tp.idErr = fmt.Errorf("trustpoint %q: identity certificate: %w", name, err)
	} else if data != nil {
		if tp.key, tp.leaf, tp.chain, err = decodeIdentity(data); err != nil {
			tp.key, tp.leaf, tp.chain = nil, nil, nil
			tp.idErr = fmt.Errorf("trustpoint %q: identity certificate: %w", name, err)
		}
	}
	if data, err := s.dir.read(s.dir.trustpointFile(name, requestFile)); err == nil {
		// Nothing depends on it: a damaged one is only not shown.
		if block, _ := pem.Decode(data); block != nil {
			tp.request, _ = x509.ParseCertificateRequest(block.Bytes)
		}
	}
	var err error
	if tp.authenticated, err = s.loadAuthorities(name, "ca.pem"); err != nil {
		tp.caErr = err
	}
	if tp.bundled, err = s.loadAuthorities(name, "bundle.pem"); err != nil {
		tp.caErr = err
	}
	return tp
}

func (s *Store) loadAuthorities(name, file string) ([]*x509.Certificate, error) {
	data, err := s.dir.read(s.dir.trustpointFile(name, file))
	if err == nil && data == nil {
		return nil, nil
	}
	var certs []*x509.Certificate
	if err == nil {
		certs, err = parseCertificates(data)
	}
	if err != nil {
		return nil, fmt.Errorf("trustpoint %q: %s: %w", name, file, err)
	}
	return certs, nil
}

// encodeIdentity makes the one file that holds private key, certificate and intermediates.
func encodeIdentity(key crypto.Signer, leaf *x509.Certificate, chain []*x509.Certificate) ([]byte, error) {
	data, err := encodeKey(key)
	if err != nil {
		return nil, err
	}
	return append(data, encodeCertificates(append([]*x509.Certificate{leaf}, chain...)...)...), nil
}

func decodeIdentity(data []byte) (crypto.Signer, *x509.Certificate, []*x509.Certificate, error) {
	block, rest := pem.Decode(data)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, nil, nil, fmt.Errorf("%w: the file does not begin with its private key", ErrMalformed)
	}
	key, err := parseKey(block.Bytes)
	if err != nil {
		return nil, nil, nil, err
	}
	certs, err := parseCertificates(rest)
	if err != nil {
		return nil, nil, nil, err
	}
	if !fitsKey(certs[0], key) {
		return nil, nil, nil, fmt.Errorf("%s: %w in the same file", describe(certs[0]), ErrKeyMismatch)
	}
	return key, certs[0], certs[1:], nil
}

// Identity returns the certificate and key that the appliance presents for a trustpoint. Errors: [ErrNoTrustpoint], [ErrNoCertificate],
// [ErrExpired], [ErrNotYetValid], [ErrWeakKey], [ErrKeyMismatch], [ErrMalformed]. What the store holds for the trustpoint counts, whatever key label a configuration names.
func (s *Store) Identity(trustpoint string) (*Identity, error) {
	return s.current().identity(trustpoint, s.now())
}

func (sn *snapshot) identity(name string, now time.Time) (*Identity, error) {
	tp := sn.trustpoints[name]
	if tp == nil {
		return nil, fmt.Errorf("%w: %q has neither certificate nor authority; `imeproxy crypto enroll` and `imeproxy crypto import` bring its certificate", ErrNoTrustpoint, name)
	}
	if tp.idErr != nil {
		return nil, fmt.Errorf("%w; import it again", tp.idErr)
	}
	if tp.leaf == nil {
		return nil, fmt.Errorf("trustpoint %q: %w; enroll it, or import one with its key", name, ErrNoCertificate)
	}
	if err := checkIdentity(tp.leaf, now); err != nil {
		return nil, fmt.Errorf("trustpoint %q: %w", name, err)
	}
	tp.linked.Do(func() {
		cert := tls.Certificate{PrivateKey: tp.key, Leaf: tp.leaf, Certificate: [][]byte{tp.leaf.Raw}}
		for _, c := range tp.sentChain() {
			cert.Certificate = append(cert.Certificate, c.Raw)
		}
		tp.identity = &Identity{Certificate: cert, Names: Domains(tp.leaf)}
	})
	return tp.identity, nil
}

// sentChain adds the trustpoint's own authorities where they are intermediates: a peer that knows the root alone needs them.
func (tp *trustpoint) sentChain() []*x509.Certificate {
	pool := append(append([]*x509.Certificate{}, tp.chain...), tp.bundled...)
	return linkChain(tp.leaf, append(pool, tp.authenticated...))
}

// Authorities returns the pool of all authenticated trustpoints as it is now.
func (s *Store) Authorities() *x509.CertPool { return s.current().anchors.all.Clone() }

// Trustpoints lists the names of the trustpoints that the store has something for.
func (s *Store) Trustpoints() []string { return sortedNames(s.current().trustpoints) }

// change collects what is to be written; nothing is written unless all checks passed.
type change struct {
	snap  *snapshot
	steps []step
}

type step struct {
	rel    string
	data   []byte
	remove bool
}

func (c *change) write(rel string, data []byte) {
	c.steps = append(c.steps, step{rel: rel, data: data})
}
func (c *change) remove(rel string) { c.steps = append(c.steps, step{rel: rel, remove: true}) }

// change runs check on what is on disk at this moment, writes what it collected in that order, and makes this process use it.
func (s *Store) change(check func(*change) error) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	unlock, err := s.dir.lock(unix.LOCK_EX, lockPatience)
	if err != nil {
		return err
	}
	defer unlock()
	s.dir.sweep()
	snap, err := s.load(nil)
	if snap == nil {
		return err
	}
	tx := &change{snap: snap}
	if err := check(tx); err != nil {
		return err
	}
	if len(tx.steps) == 0 {
		return nil
	}
	for _, st := range tx.steps {
		if st.remove {
			err = s.dir.remove(st.rel)
		} else {
			err = s.dir.write(st.rel, st.data)
		}
		if err != nil {
			return errors.Join(err, s.dir.bump())
		}
	}
	if err := s.dir.bump(); err != nil {
		return err
	}
	// Damage elsewhere in the directory is no failure of this change; LastReloadError and the damaged trustpoint's use tell of it.
	_ = s.reloadLocked()
	return nil
}

func (s *Store) writeMeta(tx *change, name string, m meta) error {
	if tp := tx.snap.trustpoints[name]; tp != nil && tp.meta == m {
		return nil
	}
	data, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	tx.write(s.dir.trustpointFile(name, "meta.json"), append(data, '\n'))
	return nil
}

// RemoveTrustpoint deletes a trustpoint with its certificates (no crypto ca trustpoint). Its peers are no longer trusted from the next handshake on.
func (s *Store) RemoveTrustpoint(name string) error {
	if err := checkName("trustpoint", name); err != nil {
		return err
	}
	return s.change(func(tx *change) error {
		if tx.snap.trustpoints[name] == nil {
			return fmt.Errorf("%w: %q", ErrNoTrustpoint, name)
		}
		tx.remove(filepath.Join("trustpoints", fileName(name)))
		return nil
	})
}
