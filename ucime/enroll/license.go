package enroll

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"imeproxy/ucime/learn"
)

// Limits of a license.
const (
	MaxPeers    = 64
	maxLicense  = 8192
	licenseHead = "INCREMENT IME_SERVICE imeproxy 1.0"
	licenseDate = "02-Jan-2006"
	enrolPrefix = "imeproxy-enrollment-v1\n"
	filePrefix  = "imeproxy-license-file-v1\n"
	anyHost     = "ANY"
	// bootstrapElement stands in licenses of bootstrap servers alone.
	bootstrapElement = "<bootstrap>yes</bootstrap>"
	signatureBytes   = ed25519.SignatureSize
)

// Tag names a license: 128 random bits, printed as 32 hexadecimal digits.
type Tag [16]byte

func (t Tag) String() string { return hex.EncodeToString(t[:]) }

// ParseTag reads 32 hexadecimal digits.
func ParseTag(s string) (Tag, error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(Tag{}) {
		return Tag{}, fmt.Errorf("tag %.40q: want 32 hexadecimal digits", s)
	}
	return Tag(b), nil
}

// License is what a license file says. Tag, PeerCount and Signature go into a request for a certificate.
type License struct {
	Tag       Tag
	PeerCount int
	Bootstrap bool      // for a bootstrap server of the ring
	Signature []byte    // of the authority, over tag, peer count and whether it is for a bootstrap server
	HostID    string    // 12 hexadecimal digits of a network interface's address, or ANY
	FileID    string    // when it was issued, 17 digits
	Expires   time.Time // the license's last moment; zero: permanent
}

// PeerIDs are the peer IDs that a certificate for the license names. They follow from the tag, which the authority drew at random: a member
// cannot choose its place in the ring, and keeps it when it renews.
func PeerIDs(tag Tag, count int) []learn.PeerID {
	ids := make([]learn.PeerID, count)
	for i := range ids {
		sum := sha256.Sum256(append([]byte("imeproxy-peer-id-v1\n"), append(tag[:], byte(i))...))
		ids[i] = learn.PeerID(sum[:16])
	}
	return ids
}

// enrolText is what the signature for the authority covers.
func enrolText(tag Tag, count int, bootstrap bool) []byte {
	text := fmt.Appendf(nil, "%s%s\n%d\n", enrolPrefix, tag, count)
	if bootstrap {
		text = append(text, "bootstrap\n"...)
	}
	return text
}

// LicenseSpec is what a license is issued for.
type LicenseSpec struct {
	PeerCount int
	Bootstrap bool      // its certificate makes a bootstrap server: who has it may admit, ban and change the ring's settings
	HostID    string    // of the member's host; ANY for a host without an address of its own
	Expires   time.Time // day of expiry; zero: permanent
	Now       time.Time
}

// IssueLicense writes a license file with a new tag.
func IssueLicense(key ed25519.PrivateKey, spec LicenseSpec) ([]byte, error) {
	if spec.PeerCount < 1 || spec.PeerCount > MaxPeers {
		return nil, fmt.Errorf("peer count %d: want 1 to %d", spec.PeerCount, MaxPeers)
	}
	host, err := canonicalHost(spec.HostID)
	if err != nil {
		return nil, err
	}
	expires := "permanent"
	if !spec.Expires.IsZero() {
		if expires = strings.ToLower(spec.Expires.UTC().Format(licenseDate)); !spec.Expires.After(spec.Now) {
			return nil, fmt.Errorf("the license would have expired on %s", expires)
		}
	}
	var tag Tag
	_, _ = rand.Read(tag[:]) // never fails
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s uncounted \\\n", licenseHead, expires)
	bootstrap := ""
	if spec.Bootstrap {
		bootstrap = bootstrapElement
	}
	fmt.Fprintf(&b, "VENDOR_STRING=<ime><peercount>%d</peercount><tag>%s</tag>%s<signature>%x</signature></ime><LicFileVersion>1.0</LicFileVersion> \\\n",
		spec.PeerCount, tag, bootstrap, ed25519.Sign(key, enrolText(tag, spec.PeerCount, spec.Bootstrap)))
	fmt.Fprintf(&b, "HOSTID=%s \\\n", host)
	now := spec.Now.UTC()
	fmt.Fprintf(&b, "NOTICE=\"<LicFileID>%s%03d</LicFileID><LicLineID>1</LicLineID><PAK></PAK>\" \\\n", now.Format("20060102150405"), now.Nanosecond()/1e6)
	sign := strings.ToUpper(hex.EncodeToString(ed25519.Sign(key, append([]byte(filePrefix), b.Bytes()...))))
	b.WriteString("SIGN=\"")
	for i := 0; i < len(sign); i += 4 {
		switch {
		case i == 0:
		case i%64 == 0:
			b.WriteString(" \\\n")
		default:
			b.WriteByte(' ')
		}
		b.WriteString(sign[i : i+4])
	}
	b.WriteString("\"\n")
	return b.Bytes(), nil
}

func canonicalHost(s string) (string, error) {
	if strings.EqualFold(s, anyHost) {
		return anyHost, nil
	}
	h := strings.ToLower(strings.NewReplacer(":", "", "-", "", ".", "").Replace(s))
	if b, err := hex.DecodeString(h); err != nil || len(b) != 6 {
		return "", fmt.Errorf("host ID %.40q: want the 12 hexadecimal digits of a network interface's address, or ANY", s)
	}
	return h, nil
}

// FileError is a mistake in a license file, with its place.
type FileError struct {
	File         string
	Line, Column int
	Text         string // the line
	Err          error
}

func (e *FileError) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("%s: %v", e.File, e.Err)
	}
	return fmt.Sprintf("%s:%d:%d: %v\n%s\n%s^", e.File, e.Line, e.Column, e.Err, e.Text, strings.Repeat(" ", e.Column-1))
}

func (e *FileError) Unwrap() error { return e.Err }

// licenseReader walks over a file.
type licenseReader struct {
	file string
	text string
	at   int
}

// fail makes an error at an offset.
func (r *licenseReader) fail(at int, format string, args ...any) error {
	at = min(at, len(r.text))
	begin := strings.LastIndexByte(r.text[:at], '\n') + 1
	line, _, _ := strings.Cut(r.text[begin:], "\n")
	if len(line) > 160 {
		line = line[:160]
	}
	return &FileError{r.file, strings.Count(r.text[:at], "\n") + 1, at - begin + 1, strings.Map(visible, line), fmt.Errorf(format, args...)}
}

func visible(c rune) rune {
	if c < ' ' || c == 0x7f {
		return ' '
	}
	return c
}

// blank skips white space and line continuations.
func (r *licenseReader) blank() {
	for r.at < len(r.text) {
		switch {
		case strings.IndexByte(" \t\n", r.text[r.at]) >= 0:
			r.at++
		case strings.HasPrefix(r.text[r.at:], "\\\n"):
			r.at += 2
		default:
			return
		}
	}
}

// want takes a literal.
func (r *licenseReader) want(literal string) error {
	r.blank()
	if !strings.HasPrefix(r.text[r.at:], literal) {
		return r.fail(r.at, "want %s", literal)
	}
	r.at += len(literal)
	return nil
}

// until takes everything before an end, and the end.
func (r *licenseReader) until(end string) (value string, at int, err error) {
	at = r.at
	n := strings.Index(r.text[at:], end)
	if n < 0 {
		return "", at, r.fail(at, "%s is missing", end)
	}
	r.at += n + len(end)
	return r.text[at : at+n], at, nil
}

// element takes <name>value</name>.
func (r *licenseReader) element(name string) (value string, at int, err error) {
	if err := r.want("<" + name + ">"); err != nil {
		return "", r.at, err
	}
	return r.until("</" + name + ">")
}

// ParseLicense reads a license file and checks the authority's signatures: any other byte, line ends apart, makes it useless. Errors are of
// type *FileError. CheckUse says whether the license is good here and now.
func ParseLicense(file string, text []byte, key ed25519.PublicKey) (*License, error) {
	if len(text) > maxLicense {
		return nil, &FileError{File: file, Err: fmt.Errorf("%d bytes are no license file, at most %d", len(text), maxLicense)}
	}
	r := &licenseReader{file: file, text: strings.ReplaceAll(string(text), "\r\n", "\n")}
	l, err := r.fields()
	if err != nil {
		return nil, err
	}
	if err := r.want("SIGN=\""); err != nil {
		return nil, err
	}
	signed := r.at - len("SIGN=\"")
	value, at, err := r.until("\"")
	if err != nil {
		return nil, err
	}
	sign, err := hex.DecodeString(strings.NewReplacer(" ", "", "\\\n", "").Replace(value))
	if err != nil || len(sign) != signatureBytes {
		return nil, r.fail(at, "SIGN: want %d hexadecimal digits", 2*signatureBytes)
	}
	if r.blank(); r.at != len(r.text) {
		return nil, r.fail(r.at, "text after the end of the license")
	}
	if !ed25519.Verify(key, append([]byte(filePrefix), r.text[:signed]...), sign) {
		return nil, r.fail(at, "the license was edited, or is of another authority")
	}
	if !ed25519.Verify(key, enrolText(l.Tag, l.PeerCount, l.Bootstrap), l.Signature) {
		return nil, &FileError{File: file, Err: fmt.Errorf("the signature over tag and peer count is wrong")}
	}
	return l, nil
}

// fields takes what stands before SIGN.
func (r *licenseReader) fields() (*License, error) {
	var l License
	if err := r.want(licenseHead + " "); err != nil {
		return nil, err
	}
	value, at, err := r.until(" ")
	if err != nil {
		return nil, err
	}
	if value != "permanent" {
		day, err := time.Parse(licenseDate, value)
		if err != nil {
			return nil, r.fail(at, "expiry %.20q: want permanent or a date such as 31-dec-2027", value)
		}
		l.Expires = day.Add(24 * time.Hour)
	}
	for _, literal := range []string{"uncounted", "VENDOR_STRING=", "<ime>"} {
		if err := r.want(literal); err != nil {
			return nil, err
		}
	}
	if value, at, err = r.element("peercount"); err != nil {
		return nil, err
	}
	if l.PeerCount, err = strconv.Atoi(value); err != nil || l.PeerCount < 1 || l.PeerCount > MaxPeers {
		return nil, r.fail(at, "peercount %.20q: want 1 to %d", value, MaxPeers)
	}
	if value, at, err = r.element("tag"); err != nil {
		return nil, err
	}
	if l.Tag, err = ParseTag(value); err != nil {
		return nil, r.fail(at, "%w", err)
	}
	l.Bootstrap = r.want(bootstrapElement) == nil
	if value, at, err = r.element("signature"); err != nil {
		return nil, err
	}
	if l.Signature, err = hex.DecodeString(value); err != nil || len(l.Signature) != signatureBytes {
		return nil, r.fail(at, "signature: want %d hexadecimal digits", 2*signatureBytes)
	}
	for _, literal := range []string{"</ime>", "<LicFileVersion>1.0</LicFileVersion>", "HOSTID="} {
		if err := r.want(literal); err != nil {
			return nil, err
		}
	}
	if value, at, err = r.until(" "); err != nil {
		return nil, err
	}
	if l.HostID, err = canonicalHost(value); err != nil {
		return nil, r.fail(at, "%w", err)
	}
	if err := r.want("NOTICE=\""); err != nil {
		return nil, err
	}
	if l.FileID, at, err = r.element("LicFileID"); err != nil {
		return nil, err
	}
	if len(l.FileID) != 17 || strings.Trim(l.FileID, "0123456789") != "" {
		return nil, r.fail(at, "LicFileID: want 17 digits")
	}
	_, _, err = r.until("\"")
	return &l, err
}

// CheckUse reports why the license is not good on a host with these network interfaces, or at this time.
func (l *License) CheckUse(interfaces []net.HardwareAddr, now time.Time) error {
	if !l.Expires.IsZero() && !now.Before(l.Expires) {
		return fmt.Errorf("license %s expired at %s", l.Tag, l.Expires.UTC().Format(time.RFC3339))
	}
	if l.HostID == anyHost || slices.ContainsFunc(interfaces, func(a net.HardwareAddr) bool { return hex.EncodeToString(a) == l.HostID }) {
		return nil
	}
	return fmt.Errorf("license %s is for the host with interface %s, which this host does not have", l.Tag, l.HostID)
}

// HostInterfaces are the addresses of this host's network interfaces.
func HostInterfaces() ([]net.HardwareAddr, error) {
	list, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("network interfaces: %w", err)
	}
	var out []net.HardwareAddr
	for _, i := range list {
		if len(i.HardwareAddr) == 6 && i.Flags&net.FlagLoopback == 0 {
			out = append(out, i.HardwareAddr)
		}
	}
	return out, nil
}
