package ring

import (
	"crypto"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"imeproxy/ucime/learn"
)

const (
	peerURI      = "urn:imeproxy:peer:"
	bootstrapURI = "urn:imeproxy:bootstrap"
	maxPeers     = 8  // peer IDs that take part: more do not fit into a member's description
	maxNamed     = 64 // peer IDs in a certificate
)

// Identity is what enrolment knows: our certificate, whom to believe, and which peer IDs a certificate names. It is asked
// for every connection, so a renewal or revocation counts from the next one on. It may be called by several goroutines.
// [PeerIDs] is the PeerIDs of an Identity that has no other idea.
type Identity interface {
	// Certificate is our own, with its key and chain.
	Certificate() (*tls.Certificate, error)
	// Roots are the authorities of the ring.
	Roots() *x509.CertPool
	// PeerIDs are those that the certificate names, one at least.
	PeerIDs(*x509.Certificate) ([]learn.PeerID, error)
	// Admitted says why the holder may not take part (revoked), nil where it may.
	Admitted(*x509.Certificate) error
}

// PeerURI is the subjectAltName that names p in a certificate.
func PeerURI(p learn.PeerID) *url.URL {
	return &url.URL{Scheme: "urn", Opaque: peerURI[4:] + p.String()}
}

// BootstrapURI is the subjectAltName that makes a certificate one of a bootstrap server.
func BootstrapURI() *url.URL { return &url.URL{Scheme: "urn", Opaque: bootstrapURI[4:]} }

// PeerIDs returns the peer IDs that a certificate's URIs name, in ascending order: 1 to 64, no two alike. The ring uses the
// first eight of them.
func PeerIDs(c *x509.Certificate) ([]learn.PeerID, error) {
	var ids []learn.PeerID
	for _, u := range c.URIs {
		text, ok := strings.CutPrefix(u.String(), peerURI)
		if !ok {
			continue
		}
		id, err := learn.ParsePeerID(text)
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, checkPeers(sorted(ids), maxNamed)
}

// IsBootstrap says whether the certificate makes its holder a bootstrap server.
func IsBootstrap(c *x509.Certificate) bool {
	return slices.ContainsFunc(c.URIs, func(u *url.URL) bool { return u.String() == bootstrapURI })
}

func comparePeers(a, b learn.PeerID) int { return slices.Compare(a[:], b[:]) }

func sorted(ids []learn.PeerID) []learn.PeerID {
	slices.SortFunc(ids, comparePeers)
	return ids
}

// checkPeers wants 1 to `most` ascending peer IDs.
func checkPeers(ids []learn.PeerID, most int) error {
	if len(ids) == 0 || len(ids) > most {
		return fmt.Errorf("%d peer IDs, want 1 to %d", len(ids), most)
	}
	for i := 1; i < len(ids); i++ {
		if comparePeers(ids[i-1], ids[i]) >= 0 {
			return errors.New("peer IDs are not in ascending order")
		}
	}
	return nil
}

// party is whoever is at the other end of a connection, as its certificate says.
type party struct {
	name      learn.PeerID   // the lowest of peers
	peers     []learn.PeerID // that take part
	named     []learn.PeerID // all of the certificate's: a ban of any is a ban of all
	key       crypto.PublicKey
	spki      string // SubjectPublicKeyInfo
	cert      []byte // DER
	print     [32]byte
	bootstrap bool
}

// partyOf verifies a certificate against the ring's roots and asks the enrolment whether it still counts.
func partyOf(id Identity, chain []*x509.Certificate, now time.Time) (*party, error) {
	if len(chain) == 0 {
		return nil, errors.New("no certificate")
	}
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	leaf, roots := chain[0], id.Roots()
	if roots == nil { // nil would mean the system's roots
		return nil, errors.New("no authority of the ring is known")
	}
	if _, err := leaf.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between, CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}); err != nil {
		return nil, fmt.Errorf("verify certificate: %w", err)
	}
	if err := id.Admitted(leaf); err != nil {
		return nil, err
	}
	return describe(id, leaf)
}

func describe(id Identity, leaf *x509.Certificate) (*party, error) {
	ids, err := id.PeerIDs(leaf)
	if err != nil {
		return nil, fmt.Errorf("peer IDs of the certificate: %w", err)
	}
	ids = sorted(slices.Clone(ids))
	if err := checkPeers(ids, maxNamed); err != nil {
		return nil, err
	}
	named := ids
	ids = ids[:min(len(ids), maxPeers)]
	if err := usableKey(leaf.PublicKey); err != nil {
		return nil, err
	}
	return &party{
		name: ids[0], peers: ids, named: named, key: leaf.PublicKey, spki: string(leaf.RawSubjectPublicKeyInfo), cert: leaf.Raw,
		print: sha256.Sum256(leaf.Raw), bootstrap: IsBootstrap(leaf),
	}, nil
}

// own is our certificate as others see it, and its key.
func own(id Identity) (*party, crypto.Signer, *x509.Certificate, error) {
	c, err := id.Certificate()
	if err != nil {
		return nil, nil, nil, fmt.Errorf("certificate of the ring: %w", err)
	}
	leaf := c.Leaf
	if leaf == nil {
		if len(c.Certificate) == 0 {
			return nil, nil, nil, errors.New("certificate of the ring: empty")
		}
		if leaf, err = x509.ParseCertificate(c.Certificate[0]); err != nil {
			return nil, nil, nil, fmt.Errorf("certificate of the ring: %w", err)
		}
	}
	key, ok := c.PrivateKey.(crypto.Signer)
	if !ok {
		return nil, nil, nil, errors.New("certificate of the ring: its key cannot sign")
	}
	p, err := describe(id, leaf)
	return p, key, leaf, err
}
