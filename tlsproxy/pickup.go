package tlsproxy

import (
	"bytes"
	"fmt"
	"os"
)

// What a person carries to somebody else lies beside the trustpoint's other files: a request to its authority, the certificate to a peer.
// Nothing of it is read back but to be shown.
const (
	requestFile     = "request.pem"
	certificateFile = "certificate.pem"
)

// Request is the file of the request that waits for its certificate, or nothing.
func (s *Store) Request(trustpoint string) string {
	if checkName("trustpoint", trustpoint) != nil {
		return ""
	}
	file := s.dir.path(s.dir.trustpointFile(trustpoint, requestFile))
	if _, err := os.Stat(file); err != nil {
		return ""
	}
	return file
}

// Publish writes the identity certificate of a trustpoint, in PEM and without its key, into a file of its own and returns the file's name: crypto
// ca export NAME identity-certificate where there is no terminal. The file is written anew when the certificate has changed.
func (s *Store) Publish(trustpoint string) (file string, err error) {
	data, err := s.ExportIdentity(trustpoint)
	if err != nil {
		return "", err
	}
	rel := s.dir.trustpointFile(trustpoint, certificateFile)
	if old, err := s.dir.read(rel); err == nil && bytes.Equal(old, data) {
		return s.dir.path(rel), nil
	}
	err = s.change(func(tx *change) error {
		tx.write(rel, data)
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("export trustpoint %q: %w", trustpoint, err)
	}
	return s.dir.path(rel), nil
}

// Authenticated says whether a trustpoint holds a certificate that peers are checked against.
func (s *Store) Authenticated(trustpoint string) bool {
	tp := s.current().trustpoints[trustpoint]
	return tp != nil && len(tp.authenticated)+len(tp.bundled) > 0
}
