package enroll

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"imeproxy/ucime/learn"
)

// Times of a member.
const (
	RenewBefore  = 30 * 24 * time.Hour // a certificate is renewed when so much of it is left
	WarnBefore   = 14 * 24 * time.Hour // IMEDistributedCacheCertificateExpiring is due then, once a day
	DefaultRetry = time.Hour           // after a failed enrolment
	ListInterval = time.Hour           // between fetches of the list of revoked certificates
	listRetry    = 5 * time.Minute
	maxList      = 4 << 20
	maxAnswer    = 64 << 10
)

// Names of the files of a member's directory.
const (
	memberFile  = "member.pem" // key and chain, in one file so that they always belong together
	pendingFile = "pending.pem"
	listFile    = "revoked.crl"
	LicenseFile = "license.lic"
)

// MemberConfig is what a member is made of.
type MemberConfig struct {
	Dir           string // for the member's own files, mode 0700
	Trust         *Trust
	URL           string // of the authority's server, such as https://enroll.example:8443
	RetryInterval time.Duration

	OnEnrolled func(notAfter time.Time) // SuccessfulEnrollment; may be nil
	OnFailure  func(error)              // EnrollFailure; may be nil
	OnList     func()                   // a list of revoked certificates came: standing connections are to be checked again; may be nil

	Interfaces func() ([]net.HardwareAddr, error) // nil: HostInterfaces
	Clock      Clock
	Log        *slog.Logger
	Dial       func(ctx context.Context, network, addr string) (net.Conn, error) // nil: TCP
}

// Member is a member's own identity, and its view of who else is one. Its methods may be called from any goroutine.
type Member struct {
	cfg   MemberConfig
	clock Clock
	log   *slog.Logger
	roots *x509.CertPool

	enrolling sync.Mutex // one enrolment at a time

	mu      sync.Mutex // guards everything that follows
	license *License
	cert    *tls.Certificate
	revoked map[string]time.Time // serials, hexadecimal
	list    *x509.RevocationList // nil: none yet
	wake    chan struct{}
	lastErr error
}

// OpenMember opens or makes a member's directory. What is wrong with a license in it is an error of type *FileError; what has expired is not an
// error here, but of no use.
func OpenMember(cfg MemberConfig) (*Member, error) {
	if cfg.RetryInterval == 0 {
		cfg.RetryInterval = DefaultRetry
	}
	if cfg.Interfaces == nil {
		cfg.Interfaces = HostInterfaces
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.OnEnrolled == nil {
		cfg.OnEnrolled = func(time.Time) {}
	}
	if cfg.OnFailure == nil {
		cfg.OnFailure = func(error) {}
	}
	if cfg.OnList == nil {
		cfg.OnList = func() {}
	}
	if cfg.Trust == nil {
		return nil, errors.New("a member needs the authority's file")
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, err
	}
	m := &Member{cfg: cfg, clock: cfg.Clock.orReal(), log: cfg.Log, roots: cfg.Trust.Pool(), wake: make(chan struct{}, 1)}
	if err := m.load(); err != nil {
		return nil, err
	}
	return m, nil
}

func (m *Member) path(name string) string { return filepath.Join(m.cfg.Dir, name) }

func (m *Member) load() error {
	text, err := readFile(m.path(LicenseFile), maxLicense)
	if err == nil {
		m.license, err = ParseLicense(m.path(LicenseFile), text, m.cfg.Trust.LicenseKey)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if text, err = readFile(m.path(memberFile), maxAnswer); err == nil {
		var key crypto.Signer
		var chain []*x509.Certificate
		if key, chain, err = parseKeyAndChain(text); err == nil {
			m.cert = tlsCertificate(key, chain)
		}
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%s: %w", m.path(memberFile), err)
	}
	if text, err = readFile(m.path(listFile), maxList); err == nil {
		err = m.takeList(text)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%s: %w", m.path(listFile), err)
	}
	return nil
}

func tlsCertificate(key crypto.Signer, chain []*x509.Certificate) *tls.Certificate {
	c := &tls.Certificate{PrivateKey: key, Leaf: chain[0]}
	for _, x := range chain {
		c.Certificate = append(c.Certificate, x.Raw)
	}
	return c
}

// InstallLicense checks a license file (utils ime license file install) and makes it the member's. One that is not good changes nothing.
func (m *Member) InstallLicense(file string, text []byte) (*License, error) {
	l, err := ParseLicense(file, text, m.cfg.Trust.LicenseKey)
	if err != nil {
		return nil, err
	}
	if err := m.usable(l); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if err := writeFile(m.path(LicenseFile), text); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.license = l
	m.nudge()
	return l, nil
}

func (m *Member) usable(l *License) error {
	interfaces, err := m.cfg.Interfaces()
	if err != nil {
		return err
	}
	return l.CheckUse(interfaces, m.clock.Now())
}

// License is the installed license, nil for none.
func (m *Member) License() *License {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.license
}

func (m *Member) nudge() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// Certificate is our own certificate with its key and chain, for either side of a TLS connection of the ring; an error when there is none that
// is good now.
func (m *Member) Certificate() (*tls.Certificate, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch now := m.clock.Now(); {
	case m.cert == nil:
		return nil, errors.New("this peer server is not enrolled")
	case now.After(m.cert.Leaf.NotAfter):
		return nil, fmt.Errorf("the ring certificate expired at %s", m.cert.Leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	return m.cert, nil
}

// NotAfter is when our certificate ends; zero when there is none.
func (m *Member) NotAfter() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cert == nil {
		return time.Time{}
	}
	return m.cert.Leaf.NotAfter
}

// Roots are the certificates that every member's certificate has to lead back to.
func (m *Member) Roots() *x509.CertPool { return m.roots }

// PeerIDs are those that a certificate names.
func (m *Member) PeerIDs(cert *x509.Certificate) ([]learn.PeerID, error) {
	return CertificatePeerIDs(cert)
}

// OwnPeerIDs are those of our certificate; none when there is none.
func (m *Member) OwnPeerIDs() []learn.PeerID {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cert == nil {
		return nil
	}
	ids, err := CertificatePeerIDs(m.cert.Leaf)
	if err != nil {
		return nil
	}
	return ids
}

// Admitted says why the holder of a certificate of the authority may not take part: it was revoked, or nobody can tell because there is no
// list of revoked certificates that is young enough. Without a list nobody is admitted.
func (m *Member) Admitted(cert *x509.Certificate) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.list == nil {
		return errors.New("there is no list of revoked certificates yet")
	}
	if m.clock.Now().After(m.list.NextUpdate) {
		return fmt.Errorf("the list of revoked certificates ended at %s", m.list.NextUpdate.UTC().Format(time.RFC3339))
	}
	if at, gone := m.revoked[cert.SerialNumber.Text(16)]; gone {
		return fmt.Errorf("certificate %x was revoked at %s", cert.SerialNumber, at.UTC().Format(time.RFC3339))
	}
	return nil
}

// takeList makes a list the member's own, when the authority signed it and it is not older than the one before.
func (m *Member) takeList(der []byte) error {
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		return err
	}
	if err := list.CheckSignatureFrom(m.cfg.Trust.CA); err != nil {
		return fmt.Errorf("the list is not the authority's: %w", err)
	}
	if list.Number == nil || list.NextUpdate.IsZero() {
		return errors.New("the list has no number or no end")
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.list != nil && list.Number.Cmp(m.list.Number) < 0 {
		return fmt.Errorf("list %v is older than list %v", list.Number, m.list.Number)
	}
	m.list, m.revoked = list, map[string]time.Time{}
	for _, e := range list.RevokedCertificateEntries {
		m.revoked[e.SerialNumber.Text(16)] = e.RevocationTime
	}
	return nil
}

// client is for one exchange with the authority, with our certificate where there is a good one.
func (m *Member) client() *http.Client {
	config := &tls.Config{
		MinVersion: tls.VersionTLS12, RootCAs: m.roots, Time: m.clock.Now,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if c, err := m.Certificate(); err == nil {
				return c, nil
			}
			return &tls.Certificate{}, nil
		},
	}
	return &http.Client{
		Timeout:       30 * time.Second,
		Transport:     &http.Transport{TLSClientConfig: config, DisableKeepAlives: true, DialContext: m.cfg.Dial, MaxResponseHeaderBytes: 16 << 10},
		CheckRedirect: func(*http.Request, []*http.Request) error { return errors.New("the authority does not redirect") },
	}
}

// do sends a request and reads at most limit bytes of the answer.
func (m *Member) do(req *http.Request, limit int64) (int, []byte, error) {
	resp, err := m.client().Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err == nil && int64(len(body)) > limit {
		err = fmt.Errorf("answer of the authority is over %d bytes", limit)
	}
	return resp.StatusCode, body, err
}

// FetchList fetches the list of revoked certificates.
func (m *Member) FetchList(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, m.cfg.URL+PathList, nil)
	if err != nil {
		return err
	}
	status, body, err := m.do(req, maxList)
	if err != nil {
		return fmt.Errorf("list of revoked certificates: %w", err)
	}
	if status != http.StatusOK {
		return fmt.Errorf("list of revoked certificates: the authority answers %d", status)
	}
	if err := m.takeList(body); err != nil {
		return fmt.Errorf("list of revoked certificates: %w", err)
	}
	err = writeFile(m.path(listFile), body)
	m.cfg.OnList() // it counts, kept or not
	return err
}

// Enroll gets a certificate (utils ime certenrollment enroll): the first, or the next one before the present one ends. Until it succeeds, the
// present one stays.
func (m *Member) Enroll(ctx context.Context) error {
	m.enrolling.Lock()
	defer m.enrolling.Unlock()
	err := m.enroll(ctx)
	m.mu.Lock()
	m.lastErr = err
	m.nudge()
	m.mu.Unlock()
	if err != nil {
		m.log.Error("enroll: no certificate", "error", err)
		m.cfg.OnFailure(err)
		return err
	}
	until := m.NotAfter()
	m.log.Info("enroll: certificate installed", "until", until)
	m.cfg.OnEnrolled(until)
	return nil
}

func (m *Member) enroll(ctx context.Context) error {
	l := m.License()
	if l == nil {
		return errors.New("no license is installed")
	}
	if err := m.usable(l); err != nil {
		return err
	}
	key, err := m.pendingKey()
	if err != nil {
		return fmt.Errorf("key: %w", err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return fmt.Errorf("certificate request: %w", err)
	}
	body, err := json.Marshal(Request{l.Tag.String(), l.PeerCount, l.Bootstrap, hex.EncodeToString(l.Signature), string(block("CERTIFICATE REQUEST", der))})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, m.cfg.URL+PathCertificate, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	status, text, err := m.do(req, maxAnswer)
	if err != nil {
		return err
	}
	answer, err := parseAnswer(status, text)
	if err != nil {
		return err
	}
	return m.install(l, key, []byte(answer.Certificate))
}

// pendingKey is the key of the certificate that is asked for. It is on disk before the authority hears of it: when an answer is lost, the same
// key proves that the next request comes from the same place.
func (m *Member) pendingKey() (crypto.Signer, error) {
	text, err := readFile(m.path(pendingFile), maxAnswer)
	if err == nil {
		if b, _ := pem.Decode(text); b != nil {
			if key, err := x509.ParsePKCS8PrivateKey(b.Bytes); err == nil {
				if s, ok := key.(crypto.Signer); ok {
					return s, nil
				}
			}
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return key, writeFile(m.path(pendingFile), block("PRIVATE KEY", der))
}

// install checks what the authority sent and makes it ours.
func (m *Member) install(l *License, key crypto.Signer, text []byte) error {
	b, rest := pem.Decode(text)
	if b == nil || b.Type != "CERTIFICATE" || len(bytes.TrimSpace(rest)) > 0 {
		return errors.New("the authority sent no certificate")
	}
	cert, err := x509.ParseCertificate(b.Bytes)
	if err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	ours, err1 := fingerprint(key.Public())
	theirs, err2 := fingerprint(cert.PublicKey)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	if ours != theirs {
		return errors.New("the certificate is for another key")
	}
	usages := []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	for _, u := range usages {
		if _, err := cert.Verify(x509.VerifyOptions{Roots: m.roots, CurrentTime: m.clock.Now(), KeyUsages: []x509.ExtKeyUsage{u}}); err != nil {
			return fmt.Errorf("certificate: %w", err)
		}
	}
	ids, err := CertificatePeerIDs(cert)
	if err != nil {
		return err
	}
	if len(ids) != l.PeerCount {
		return fmt.Errorf("the certificate names %d peer IDs, the license %d", len(ids), l.PeerCount)
	}
	if IsBootstrap(cert) != l.Bootstrap {
		return errors.New("license and certificate do not agree on whether this is a bootstrap server")
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	chain := append(block("PRIVATE KEY", der), block("CERTIFICATE", cert.Raw)...)
	if err := writeFile(m.path(memberFile), append(chain, block("CERTIFICATE", m.cfg.Trust.CA.Raw)...)); err != nil {
		return err
	}
	if err := os.Remove(m.path(pendingFile)); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cert = tlsCertificate(key, []*x509.Certificate{cert, m.cfg.Trust.CA})
	return nil
}
