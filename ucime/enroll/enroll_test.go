package enroll

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"imeproxy/ucime/learn"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeClock stands still until a test advances it. It starts at the machine's time, since TLS libraries of other programs look at that.
type fakeClock struct {
	mu     sync.Mutex
	now    time.Time
	timers map[*fakeTimer]struct{}
}

type fakeTimer struct {
	at time.Time
	f  func()
}

func newFakeClock() *fakeClock {
	return &fakeClock{now: time.Now().UTC().Truncate(time.Second), timers: map[*fakeTimer]struct{}{}}
}

func (c *fakeClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *fakeClock) clock() Clock {
	return Clock{Now: c.Now, After: func(d time.Duration, f func()) func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		t := &fakeTimer{c.now.Add(d), f}
		c.timers[t] = struct{}{}
		return func() bool {
			c.mu.Lock()
			defer c.mu.Unlock()
			_, there := c.timers[t]
			delete(c.timers, t)
			return there
		}
	}}
}

func (c *fakeClock) advance(d time.Duration) {
	c.mu.Lock()
	c.now = c.now.Add(d)
	var due []func()
	for t := range c.timers {
		if !t.at.After(c.now) {
			delete(c.timers, t)
			due = append(due, t.f)
		}
	}
	c.mu.Unlock()
	for _, f := range due {
		f()
	}
}

// next is when the next timer is due.
func (c *fakeClock) next() (at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for t := range c.timers {
		if at.IsZero() || t.at.Before(at) {
			at = t.at
		}
	}
	return at
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

var hostMAC = net.HardwareAddr{0x00, 0x16, 0x35, 0x69, 0xb2, 0xe0}

// world is an authority with its server, and where members live.
type world struct {
	t         *testing.T
	clock     *fakeClock
	dir       string
	authority *Authority
	server    *Server
	trust     *Trust
	url       string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, clock: newFakeClock(), dir: filepath.Join(t.TempDir(), "authority")}
	if err := InitAuthority(w.dir, "Test ring", w.clock.clock()); err != nil {
		t.Fatal(err)
	}
	var err error
	if w.authority, err = OpenAuthority(w.dir, w.clock.clock()); err != nil {
		t.Fatal(err)
	}
	if w.server, err = NewServer(w.authority, []string{"127.0.0.1", "enroll.example"}, slog.New(slog.NewTextHandler(t.Output(), nil))); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(w.dir, TrustFile))
	if err != nil {
		t.Fatal(err)
	}
	if w.trust, err = ParseTrust(text); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.url = "https://" + l.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = w.server.Serve(ctx, l) }()
	t.Cleanup(func() { cancel(); <-done })
	return w
}

func (w *world) license(spec LicenseSpec) []byte {
	w.t.Helper()
	if spec.HostID == "" {
		spec.HostID = hostMAC.String()
	}
	spec.Now = w.clock.Now()
	text, err := IssueLicense(w.authority.licenseKey, spec)
	if err != nil {
		w.t.Fatal(err)
	}
	return text
}

func (w *world) member(dir string) *Member {
	w.t.Helper()
	m, err := OpenMember(MemberConfig{
		Dir: dir, Trust: w.trust, URL: w.url, Clock: w.clock.clock(), Log: slog.New(slog.NewTextHandler(w.t.Output(), nil)),
		Interfaces: func() ([]net.HardwareAddr, error) { return []net.HardwareAddr{{1, 2, 3, 4, 5, 6}, hostMAC}, nil },
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return m
}

// enrolled is a member with a certificate and the list.
func (w *world) enrolled(dir string, license []byte) *Member {
	w.t.Helper()
	m := w.member(dir)
	if _, err := m.InstallLicense("a.lic", license); err != nil {
		w.t.Fatal(err)
	}
	if err := errors.Join(m.Enroll(w.t.Context()), m.FetchList(w.t.Context())); err != nil {
		w.t.Fatal(err)
	}
	return m
}

func TestLicenseSaysWhatItWasIssuedFor(t *testing.T) {
	w := newWorld(t)
	for _, ends := range []string{"\n", "\r\n"} {
		text := bytes.ReplaceAll(w.license(LicenseSpec{PeerCount: 5, Expires: w.clock.Now().Add(48 * time.Hour)}), []byte("\n"), []byte(ends))
		l, err := ParseLicense("x.lic", text, w.trust.LicenseKey)
		if err != nil {
			t.Fatal(err)
		}
		if l.PeerCount != 5 || l.HostID != "00163569b2e0" || l.Tag == (Tag{}) || len(l.FileID) != 17 {
			t.Errorf("%+v", l)
		}
		other := []net.HardwareAddr{{1, 2, 3, 4, 5, 6}}
		if err := l.CheckUse(append(other, hostMAC), w.clock.Now()); err != nil {
			t.Error(err)
		}
		if err := l.CheckUse(other, w.clock.Now()); err == nil || !strings.Contains(err.Error(), "is for the host with interface 00163569b2e0") {
			t.Errorf("another host: %v", err)
		}
		if err := l.CheckUse([]net.HardwareAddr{hostMAC}, w.clock.Now().Add(72*time.Hour)); err == nil || !strings.Contains(err.Error(), "expired at") {
			t.Errorf("expired: %v", err)
		}
	}
	text := w.license(LicenseSpec{PeerCount: 1, HostID: "any"})
	if l, err := ParseLicense("x.lic", text, w.trust.LicenseKey); err != nil || l.CheckUse(nil, w.clock.Now().AddDate(30, 0, 0)) != nil {
		t.Errorf("%+v, %v", l, err)
	}
	for _, spec := range []LicenseSpec{{PeerCount: 0, HostID: "ANY"}, {PeerCount: 65, HostID: "ANY"}, {PeerCount: 1, HostID: "0016"}, {PeerCount: 1, HostID: "ANY", Expires: w.clock.Now().Add(-time.Hour), Now: w.clock.Now()}} {
		if _, err := IssueLicense(w.authority.licenseKey, spec); err == nil {
			t.Errorf("%+v was issued", spec)
		}
	}
}

// No byte of a license can be changed: each is tried.
func TestEditedLicenseIsRefused(t *testing.T) {
	w := newWorld(t)
	text := w.license(LicenseSpec{PeerCount: 5})
	for i := range text {
		for _, b := range []byte{text[i] ^ 1, text[i] ^ 0x20} {
			edited := bytes.Clone(text)
			edited[i] = b
			l, err := ParseLicense("x.lic", edited, w.trust.LicenseKey)
			if err == nil && (i < bytes.Index(text, []byte("SIGN=")) || !bytes.EqualFold(edited, text)) {
				t.Errorf("byte %d changed from %q to %q gives %+v", i, text[i], b, l)
			}
		}
	}
	if _, err := ParseLicense("x.lic", append(text, 'x'), w.trust.LicenseKey); err == nil {
		t.Error("text after the end")
	}
	foreign, _, _ := ed25519.GenerateKey(rand.Reader)
	if _, err := ParseLicense("x.lic", text, foreign); err == nil {
		t.Error("another authority's license")
	}
}

func TestLicenseErrorsHaveTheirPlace(t *testing.T) {
	w := newWorld(t)
	text := string(w.license(LicenseSpec{PeerCount: 5}))
	edit := func(old, new string) string { return strings.Replace(text, old, new, 1) }
	for edited, want := range map[string]string{
		edit("INCREMENT", "DECREMENT"):                 "x.lic:1:1: want INCREMENT IME_SERVICE imeproxy 1.0 ",
		edit("permanent", "soon"):                      "x.lic:1:36: expiry \"soon\": want permanent or a date such as 31-dec-2027",
		edit("<peercount>5", "<peercount>500"):         "x.lic:2:31: peercount \"500\": want 1 to 64",
		edit("<peercount>5", "<peercount>6"):           "x.lic:5:7: the license was edited, or is of another authority",
		edit("HOSTID=", "HOSTID=x"):                    "x.lic:3:8: host ID \"x00163569b2e0\": want the 12",
		edit("<LicFileID>", "<LicFileID>0"):            "x.lic:4:20: LicFileID: want 17 digits",
		text[:len(text)-3]:                             "x.lic:5:7: \" is missing",
		text + "\nHOSTID=ANY":                          "x.lic:8:1: text after the end of the license",
		strings.Repeat("x", maxLicense+1):              "x.lic: 8193 bytes are no license file, at most 8192",
		"":                                             "x.lic:1:1: want INCREMENT",
		edit("SIGN=\"", "SIGN=\"00"):                   "x.lic:5:7: SIGN: want 128 hexadecimal digits",
		"INCREMENT IME_SERVICE imeproxy 1.0 permanent": "x.lic:1:36:   is missing",
	} {
		_, err := ParseLicense("x.lic", []byte(edited), w.trust.LicenseKey)
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("got %v\nwant %s", err, want)
		}
	}
	_, err := ParseLicense("x.lic", []byte(edit("permanent", "soon")), w.trust.LicenseKey)
	if _, after, _ := strings.Cut(err.Error(), "\n"); !strings.HasSuffix(after, "\n"+strings.Repeat(" ", 35)+"^") {
		t.Errorf("no caret: %q", err)
	}
}

func FuzzLicense(f *testing.F) {
	public, private, _ := ed25519.GenerateKey(rand.Reader)
	for _, spec := range []LicenseSpec{{PeerCount: 5, HostID: "00163569b2e0", Now: time.Now()}, {PeerCount: 1, HostID: "ANY", Now: time.Now(), Expires: time.Now().Add(time.Hour)}} {
		text, err := IssueLicense(private, spec)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
		f.Add(text[:len(text)/2])
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		l, err := ParseLicense("x.lic", text, public)
		if err != nil {
			var where *FileError
			if !errors.As(err, &where) || where.Line > 0 && (where.Column < 1 || strings.ContainsRune(where.Text, '\n')) {
				t.Fatalf("%#v", err)
			}
			_ = err.Error()
			return
		}
		if l.PeerCount < 1 || l.PeerCount > MaxPeers || !ed25519.Verify(public, enrolText(l.Tag, l.PeerCount, l.Bootstrap), l.Signature) {
			t.Fatalf("%+v", l)
		}
	})
}

func TestMemberEnrolsAndItsCertificateNamesItsPeerIDs(t *testing.T) {
	w := newWorld(t)
	dir := filepath.Join(t.TempDir(), "member")
	m := w.enrolled(dir, w.license(LicenseSpec{PeerCount: 3}))
	cert, err := m.Certificate()
	if err != nil {
		t.Fatal(err)
	}
	ids, err := m.PeerIDs(cert.Leaf)
	if err != nil || len(ids) != 3 || ids[0] == ids[1] || !slices.Equal(ids, PeerIDs(m.License().Tag, 3)) || !slices.Equal(ids, m.OwnPeerIDs()) {
		t.Errorf("%v, %v", ids, err)
	}
	if got, want := cert.Leaf.URIs[0].String(), "urn:imeproxy:peer:"+ids[0].String(); got != want {
		t.Errorf("URI %s, want %s", got, want)
	}
	if life := cert.Leaf.NotAfter.Sub(w.clock.Now()); life != CertificateLife {
		t.Errorf("lives for %v", life)
	}
	if err := m.Admitted(cert.Leaf); err != nil {
		t.Error(err)
	}
	// OpenSSL finds it good, and finds the peer IDs in it.
	ca, leaf := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "leaf.pem")
	if err := errors.Join(os.WriteFile(ca, block("CERTIFICATE", w.trust.CA.Raw), 0o600), os.WriteFile(leaf, block("CERTIFICATE", cert.Leaf.Raw), 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, purpose := range []string{"sslserver", "sslclient"} {
		if out, err := exec.Command("openssl", "verify", "-x509_strict", "-purpose", purpose, "-CAfile", ca, leaf).CombinedOutput(); err != nil {
			t.Errorf("%s: %s", purpose, out)
		}
	}
	if out, err := exec.Command("openssl", "x509", "-in", leaf, "-noout", "-ext", "subjectAltName").CombinedOutput(); err != nil || !strings.Contains(string(out), "URI:urn:imeproxy:peer:"+ids[2].String()) {
		t.Errorf("%s", out)
	}
	// A restart finds all of it again, in files that are nobody else's.
	again := w.member(dir)
	if c, err := again.Certificate(); err != nil || !c.Leaf.Equal(cert.Leaf) || again.Admitted(c.Leaf) != nil || again.License().Tag != m.License().Tag {
		t.Errorf("after a restart: %v", err)
	}
	for _, name := range []string{memberFile, LicenseFile, listFile} {
		if st, err := os.Stat(filepath.Join(dir, name)); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", name, st.Mode(), err)
		}
	}
	if st := again.Status(); !st.Enrolled || st.PeerCount != 3 || len(st.PeerIDs) != 3 || st.Revoked != 0 {
		t.Errorf("%+v", st)
	}
}

func TestMemberNeedsAGoodLicense(t *testing.T) {
	w := newWorld(t)
	m := w.member(t.TempDir())
	if err := m.Enroll(t.Context()); err == nil || err.Error() != "no license is installed" {
		t.Errorf("no license: %v", err)
	}
	if _, err := m.Certificate(); err == nil {
		t.Error("a certificate from nothing")
	}
	if _, err := m.InstallLicense("b.lic", w.license(LicenseSpec{PeerCount: 1, HostID: "aa:bb:cc:dd:ee:ff"})); err == nil || !strings.HasPrefix(err.Error(), "b.lic: license ") {
		t.Errorf("another host's: %v", err)
	}
	other := newWorld(t)
	if _, err := m.InstallLicense("c.lic", other.license(LicenseSpec{PeerCount: 1})); err == nil {
		t.Error("another authority's")
	}
	if m.License() != nil {
		t.Error("a refused license was kept")
	}
}

// A copied license gets nothing while its owner's certificate lives, unless the authority's owner releases it.
func TestCopiedLicenseIsOfNoUse(t *testing.T) {
	w := newWorld(t)
	license := w.license(LicenseSpec{PeerCount: 2})
	owner := w.enrolled(t.TempDir(), license)
	thief := w.member(t.TempDir())
	if _, err := thief.InstallLicense("a.lic", license); err != nil {
		t.Fatal(err)
	}
	var no *Refusal
	if err := thief.Enroll(t.Context()); !errors.As(err, &no) || no.Status != 409 {
		t.Errorf("%v", err)
	}
	first, _ := owner.Certificate()
	if err := owner.Enroll(t.Context()); err != nil { // with the certificate that it has
		t.Fatal(err)
	}
	second, _ := owner.Certificate()
	if second.Leaf.Equal(first.Leaf) || !slices.Equal(owner.OwnPeerIDs(), PeerIDs(owner.License().Tag, 2)) {
		t.Error("not renewed, or with other peer IDs")
	}
	if a, _ := fingerprint(first.Leaf.PublicKey); a == func() string { b, _ := fingerprint(second.Leaf.PublicKey); return b }() {
		t.Error("renewed with the old key")
	}
	if err := w.authority.Release(owner.License().Tag); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(owner.FetchList(t.Context()), thief.FetchList(t.Context())); err != nil {
		t.Fatal(err)
	}
	if err := owner.Admitted(second.Leaf); err == nil || owner.Admitted(first.Leaf) == nil {
		t.Errorf("released certificates are admitted: %v", err)
	}
	if err := thief.Enroll(t.Context()); err != nil {
		t.Errorf("after the release: %v", err)
	}
}

// When the answer of the authority is lost, the same request gets through the next time, even without a certificate of its own.
func TestLostAnswer(t *testing.T) {
	w := newWorld(t)
	m := w.member(t.TempDir())
	if _, err := m.InstallLicense("a.lic", w.license(LicenseSpec{PeerCount: 1})); err != nil {
		t.Fatal(err)
	}
	key, err := m.pendingKey()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.authority.Enroll(w.request(m.License(), key), nil); err != nil { // and nobody hears of it
		t.Fatal(err)
	}
	if err := m.Enroll(t.Context()); err != nil {
		t.Error(err)
	}
	list, err := w.authority.Issued()
	if err != nil || len(list) != 2 || list[0].Tag != list[1].Tag || list[0].Serial == list[1].Serial || list[1].State != "valid" {
		t.Errorf("%+v, %v", list, err)
	}
}

// request makes a request as a member would.
func (w *world) request(l *License, key any) Request {
	w.t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		w.t.Fatal(err)
	}
	return Request{l.Tag.String(), l.PeerCount, l.Bootstrap, hex.EncodeToString(l.Signature), string(block("CERTIFICATE REQUEST", der))}
}

// flipped is hex with another first digit: a fixed one would be that of one signature in sixteen.
func flipped(hex string) string {
	first := byte('0')
	if hex[0] == first {
		first = '1'
	}
	return string(first) + hex[1:]
}

func TestRequestsThatAreRefused(t *testing.T) {
	w := newWorld(t)
	l, err := ParseLicense("x", w.license(LicenseSpec{PeerCount: 2}), w.trust.LicenseKey)
	if err != nil {
		t.Fatal(err)
	}
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	good := w.request(l, key)
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	p521, _ := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	for name, c := range map[string]struct {
		edit func(*Request)
		want int
	}{
		"tag":             {func(r *Request) { r.Tag = "163d" }, 400},
		"another tag":     {func(r *Request) { r.Tag = strings.Repeat("1", 32) }, 403},
		"more peers":      {func(r *Request) { r.PeerCount = 3 }, 403},
		"no peers":        {func(r *Request) { r.PeerCount = 0 }, 400},
		"65 peers":        {func(r *Request) { r.PeerCount = 65 }, 400},
		"signature":       {func(r *Request) { r.Signature = flipped(r.Signature) }, 403},
		"short signature": {func(r *Request) { r.Signature = "00" }, 400},
		"no csr":          {func(r *Request) { r.CSR = "" }, 400},
		"broken csr":      {func(r *Request) { r.CSR = string(block("CERTIFICATE REQUEST", []byte{1, 2})) }, 400},
		"edited csr": {func(r *Request) {
			b, _ := pem.Decode([]byte(r.CSR))
			b.Bytes[len(b.Bytes)-1] ^= 1
			r.CSR = string(pem.EncodeToMemory(b))
		}, 400},
		"weak key": {func(r *Request) { r.CSR = w.request(l, weak).CSR }, 400},
		"P-521":    {func(r *Request) { r.CSR = w.request(l, p521).CSR }, 400},
	} {
		req := good
		c.edit(&req)
		_, err := w.authority.Enroll(req, nil)
		var no *Refusal
		if !errors.As(err, &no) || no.Status != c.want {
			t.Errorf("%s: %v, want %d", name, err, c.want)
		}
	}
	for i := range dailyLimit + 1 {
		_, err := w.authority.Enroll(good, nil)
		if i < dailyLimit && err != nil || i == dailyLimit && (err == nil || err.(*Refusal).Status != 429) {
			t.Errorf("certificate %d: %v", i, err)
		}
	}
	w.clock.advance(24 * time.Hour)
	if _, err := w.authority.Enroll(good, nil); err != nil {
		t.Errorf("the next day: %v", err)
	}
	if err := w.authority.Revoke(l.Tag); err != nil {
		t.Fatal(err)
	}
	if _, err := w.authority.Enroll(good, nil); err == nil || err.(*Refusal).Status != 403 {
		t.Errorf("revoked license: %v", err)
	}
}

// A request's answer names nothing that the requester asked for in its CSR: names and extensions in it mean nothing.
func TestCSRChoosesNothingButTheKey(t *testing.T) {
	w := newWorld(t)
	l, err := ParseLicense("x", w.license(LicenseSpec{PeerCount: 1}), w.trust.LicenseKey)
	if err != nil {
		t.Fatal(err)
	}
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	req := w.request(l, key)
	other := w.trust.CA.Subject
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: other, DNSNames: []string{"enroll.example"}, IPAddresses: []net.IP{{127, 0, 0, 1}}}, key)
	if err != nil {
		t.Fatal(err)
	}
	req.CSR = string(block("CERTIFICATE REQUEST", der))
	a, err := w.authority.Enroll(req, nil)
	if err != nil {
		t.Fatal(err)
	}
	b, _ := pem.Decode([]byte(a.Certificate))
	cert, err := x509.ParseCertificate(b.Bytes)
	if err != nil || len(cert.DNSNames)+len(cert.IPAddresses) != 0 || cert.Subject.CommonName == other.CommonName || cert.IsCA || len(cert.URIs) != 1 {
		t.Errorf("%+v, %v", cert, err)
	}
}

func TestRevocationReachesEveryMember(t *testing.T) {
	w := newWorld(t)
	license := w.license(LicenseSpec{PeerCount: 1})
	bad, good := w.enrolled(t.TempDir(), license), w.member(t.TempDir())
	lists := make(chan struct{}, 100)
	good.cfg.OnList = func() { lists <- struct{}{} }
	if _, err := good.InstallLicense("b.lic", w.license(LicenseSpec{PeerCount: 1})); err != nil {
		t.Fatal(err)
	}
	theirs, _ := bad.Certificate()
	if err := good.Admitted(theirs.Leaf); err == nil {
		t.Error("somebody is admitted without a list")
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = good.Run(ctx) }()
	defer func() { cancel(); <-done }()
	eventually(t, "a certificate and a list", func() bool { _, err := good.Certificate(); return err == nil && good.Admitted(theirs.Leaf) == nil })
	old, err := w.authority.List()
	if err != nil {
		t.Fatal(err)
	}
	// Another process revokes, as the owner's command does beside the server.
	beside, err := OpenAuthority(w.dir, w.clock.clock())
	if err != nil {
		t.Fatal(err)
	}
	tag := bad.License().Tag
	if err := beside.Revoke(tag); err != nil {
		t.Fatal(err)
	}
	if err := beside.Revoke(tag); err == nil {
		t.Error("revoked twice")
	}
	eventually(t, "Run waits", func() bool { return w.clock.next().Sub(w.clock.Now()) == ListInterval })
	w.clock.advance(ListInterval)
	eventually(t, "revoked", func() bool { return good.Admitted(theirs.Leaf) != nil })
	if len(lists) < 2 {
		t.Errorf("told of %d lists", len(lists))
	}
	// An older list, replayed, brings it back to nobody.
	if err := good.takeList(old); err == nil || good.Admitted(theirs.Leaf) == nil {
		t.Errorf("an old list was taken: %v", err)
	}
	forged, err := newWorld(t).authority.List()
	if err != nil {
		t.Fatal(err)
	}
	if err := good.takeList(forged); err == nil {
		t.Error("another authority's list was taken")
	}
	// OpenSSL reads the list.
	list, err := w.authority.List()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("openssl", "crl", "-inform", "DER", "-noout", "-text")
	cmd.Stdin = bytes.NewReader(list)
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), strings.ToUpper(theirs.Leaf.SerialNumber.Text(16))) {
		t.Errorf("%s", out)
	}
}

// Without a young list nobody is admitted: an authority that is kept silent does not make revocations void.
func TestListThatEnded(t *testing.T) {
	w := newWorld(t)
	m := w.enrolled(t.TempDir(), w.license(LicenseSpec{PeerCount: 1}))
	cert, _ := m.Certificate()
	w.clock.advance(ListLife)
	if err := m.Admitted(cert.Leaf); err != nil {
		t.Error(err)
	}
	w.clock.advance(time.Second)
	if err := m.Admitted(cert.Leaf); err == nil || !strings.Contains(err.Error(), "list of revoked certificates ended") {
		t.Errorf("%v", err)
	}
}

// The certificate is renewed by itself when 30 days are left; where that fails, again every hour, with an alarm each time.
func TestRenewalByItself(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	var mu sync.Mutex
	var enrolled, failures int
	var down bool
	m, err := OpenMember(MemberConfig{
		Dir: dir, Trust: w.trust, URL: w.url, Clock: w.clock.clock(), Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Interfaces: func() ([]net.HardwareAddr, error) { return []net.HardwareAddr{hostMAC}, nil },
		OnEnrolled: func(time.Time) { mu.Lock(); defer mu.Unlock(); enrolled++ },
		OnFailure:  func(error) { mu.Lock(); defer mu.Unlock(); failures++ },
		Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			mu.Lock()
			defer mu.Unlock()
			if down {
				return nil, errors.New("the network is down")
			}
			return (&net.Dialer{}).DialContext(ctx, network, addr)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	state := func() (int, int) { mu.Lock(); defer mu.Unlock(); return enrolled, failures }
	set := func(v bool) { mu.Lock(); defer mu.Unlock(); down = v }
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = m.Run(ctx) }()
	defer func() { cancel(); <-done }()
	if _, err := m.InstallLicense("a.lic", w.license(LicenseSpec{PeerCount: 1})); err != nil {
		t.Fatal(err)
	}
	waits := func(d time.Duration) func() bool {
		return func() bool { n := w.clock.next(); return !n.IsZero() && n.Sub(w.clock.Now()) == d }
	}
	eventually(t, "enrolled", func() bool { n, _ := state(); return n == 1 })
	eventually(t, "waiting", waits(ListInterval))
	first := m.NotAfter()
	w.clock.advance(first.Add(-RenewBefore).Add(-time.Second).Sub(w.clock.Now()))
	eventually(t, "waiting for the renewal", waits(time.Second))
	set(true)
	w.clock.advance(time.Second)
	eventually(t, "the first failure", func() bool { _, n := state(); return n == 1 })
	eventually(t, "waiting for the list again", func() bool { return w.clock.next().Sub(w.clock.Now()) > 0 })
	if m.NotAfter() != first {
		t.Error("a failure took the certificate away")
	}
	set(false)
	w.clock.advance(DefaultRetry)
	eventually(t, "renewed", func() bool { n, _ := state(); return n == 2 })
	if left := m.NotAfter().Sub(first); left < 300*24*time.Hour {
		t.Errorf("the new certificate lives %v longer", left)
	}
}

// The limits of the server, over the wire.
func TestServerLimits(t *testing.T) {
	w := newWorld(t)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: w.trust.Pool(), ServerName: "enroll.example"}}}
	defer client.CloseIdleConnections()
	post := func(body string) (int, string) {
		t.Helper()
		resp, err := client.Post(w.url+PathCertificate, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, _ := io.ReadAll(resp.Body)
		var e struct{ Error string }
		if json.Unmarshal(text, &e) != nil || e.Error == "" {
			t.Errorf("answer %s", text)
		}
		return resp.StatusCode, e.Error
	}
	if n, _ := post(strings.Repeat(" ", maxRequest+1)); n != 413 {
		t.Errorf("too large: %d", n)
	}
	for i := range sourceTries {
		want := 400
		if i == sourceTries-1 {
			want = 429
		}
		if n, e := post("{}x"); n != want {
			t.Errorf("request %d: %d %s", i, n, e)
		}
	}
	w.clock.advance(sourceTime)
	if n, _ := post("[]"); n != 400 {
		t.Errorf("a minute later: %d", n)
	}
	if st := w.server.Stats(); st.Limited != 1 || st.Refused != sourceTries+1 {
		t.Errorf("%+v", st)
	}
	for _, path := range []string{"/", PathCertificate, PathList + "x"} {
		resp, err := client.Get(w.url + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != 404 {
			t.Errorf("GET %s: %d", path, resp.StatusCode)
		}
	}
	for i := range maxSources + 10 {
		w.server.failed(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), w.clock.Now().Add(time.Duration(i)))
	}
	if n := len(w.server.sources); n != maxSources {
		t.Errorf("%d sources", n)
	}
	for range maxAtOnce {
		w.server.busy <- struct{}{}
	}
	if n, _ := post("{}"); n != 503 || w.server.Stats().Busy != 1 {
		t.Errorf("busy: %d", n)
	}
	for range maxAtOnce {
		<-w.server.busy
	}
}

// A host that opens all connections and says nothing keeps nobody out: its oldest ones give way.
func TestConnectionsOverTheLimitGiveWay(t *testing.T) {
	w := newWorld(t)
	addr := strings.TrimPrefix(w.url, "https://")
	var open []net.Conn
	defer func() {
		for _, c := range open {
			c.Close()
		}
	}()
	silent := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	for range maxConnections {
		c, err := silent.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, c)
	}
	m := w.member(filepath.Join(t.TempDir(), "m"))
	if err := m.FetchList(t.Context()); err != nil {
		t.Errorf("a member cannot have the list of revoked certificates: %v", err)
	}
	_ = open[0].SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := open[0].Read(make([]byte, 1)); !errors.Is(err, io.EOF) && !strings.Contains(err.Error(), "reset") {
		t.Errorf("the oldest one: %v", err)
	}
	if n := w.server.Stats().Connections; n != 1 {
		t.Errorf("%d gave way", n)
	}
}

// What a crash left at the end of the journal was told to nobody, and does not spoil what comes after it.
func TestJournalAfterACrash(t *testing.T) {
	w := newWorld(t)
	l, err := ParseLicense("x", w.license(LicenseSpec{PeerCount: 1}), w.trust.LicenseKey)
	if err != nil {
		t.Fatal(err)
	}
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if _, err := w.authority.Enroll(w.request(l, key), nil); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(w.dir, journalFile)
	whole, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for cut := range len(whole) {
		if err := os.WriteFile(name, append(bytes.Clone(whole), whole[:cut]...), 0o600); err != nil {
			t.Fatal(err)
		}
		a, err := OpenAuthority(w.dir, w.clock.clock())
		if err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		if err := a.Revoke(l.Tag); err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		if a, err = OpenAuthority(w.dir, w.clock.clock()); err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		if list, err := a.Issued(); err != nil || len(list) != 1 || list[0].State != "revoked" {
			t.Fatalf("cut at %d: %+v, %v", cut, list, err)
		}
	}
	if err := os.WriteFile(name, []byte("nonsense\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenAuthority(w.dir, w.clock.clock()); err == nil || !strings.Contains(err.Error(), "journal: entry 1: ") {
		t.Errorf("nonsense: %v", err)
	}
}

func TestAuthorityIsMadeOnce(t *testing.T) {
	w := newWorld(t)
	if err := InitAuthority(w.dir, "again", w.clock.clock()); err == nil {
		t.Error("made twice")
	}
	for _, name := range []string{caFile, licenseFile} {
		if st, err := os.Stat(filepath.Join(w.dir, name)); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v", name, err)
		}
	}
	trust, _ := os.ReadFile(filepath.Join(w.dir, TrustFile))
	if strings.Contains(string(trust), "PRIVATE") {
		t.Error("a private key is in the file for members")
	}
	for name, text := range map[string]string{"empty": "", "no key": string(block("CERTIFICATE", w.trust.CA.Raw)), "two": string(trust) + string(trust), "nonsense": string(block("CERTIFICATE", []byte{1}))} {
		if _, err := ParseTrust([]byte(text)); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

func TestPeerIDsOfACertificate(t *testing.T) {
	w := newWorld(t)
	if ids, err := CertificatePeerIDs(w.trust.CA); err == nil {
		t.Errorf("the authority's own certificate names %v", ids)
	}
	a, b := PeerIDs(Tag{1}, 64), PeerIDs(Tag{2}, 64)
	seen := map[learn.PeerID]bool{}
	for _, id := range append(a, b...) {
		seen[id] = true
	}
	if len(seen) != 128 || !slices.Equal(a[:5], PeerIDs(Tag{1}, 5)) {
		t.Errorf("%d peer IDs", len(seen))
	}
}
