package proxy

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"imeproxy/proxy/config"
	"imeproxy/tlsproxy"
)

// checkTrustpoints refuses a configuration whose identities do not exist: a proxy without certificate would refuse every call. One that is not valid
// now is no reason: a restart past its last day, or before the clock is set, would take the enterprise's whole traffic with it. Handshakes look at
// the dates, and the list of health problems says it.
func (a *Appliance) checkTrustpoints(p *plan) error {
	if err := a.cryptoActions(p.cfg); err != nil {
		return err
	}
	var errs []error
	for _, name := range p.trustpoints() {
		_, err := a.store.Identity(name)
		if err != nil && !errors.Is(err, tlsproxy.ErrExpired) && !errors.Is(err, tlsproxy.ErrNotYetValid) {
			errs = append(errs, err) // names the trustpoint
		}
	}
	return errors.Join(errs...)
}

// cryptoActions does what the crypto lines of the configuration say, where it is not done yet.
func (a *Appliance) cryptoActions(cfg *config.Config) error {
	for _, x := range cfg.CryptoActions {
		var err error
		switch x.Kind {
		case config.GenerateKey:
			if !a.store.HasKey(x.Label) {
				err = a.store.GenerateKey(x.Label, x.Algorithm, x.Bits, false)
			}
		case config.Authenticate:
			err = a.authenticate(x)
		case config.ImportCertificate:
			err = a.importCertificate(x, trustpointSpec(cfg, x.Trustpoint))
		case config.Enroll:
			err = a.enroll(x, trustpointSpec(cfg, x.Trustpoint))
		case config.ExportIdentity:
			a.export(x)
		}
		if err != nil {
			return fmt.Errorf("line %d: %w", x.Line, err)
		}
	}
	return nil
}

func trustpointSpec(cfg *config.Config, name string) tlsproxy.TrustpointSpec {
	for _, t := range cfg.Trustpoints {
		if t.Name == name {
			return tlsproxy.TrustpointSpec{Name: t.Name, Enrollment: t.Enrollment, SubjectName: t.SubjectName, FQDN: t.FQDN, KeyPair: t.KeyPair}
		}
	}
	return tlsproxy.TrustpointSpec{Name: name}
}

// authenticate trusts the certificates of the text. Without any, those of the state directory count, and it is said when there are none.
func (a *Appliance) authenticate(x config.CryptoAction) error {
	if len(x.PEM) > 0 {
		return a.store.Authenticate(x.Trustpoint, x.PEM)
	}
	if !a.store.Authenticated(x.Trustpoint) {
		a.log.Warn("trustpoint has no authenticated certificate yet: nobody is trusted by it; store one by imeproxy crypto authenticate",
			"line", x.Line, "trustpoint", x.Trustpoint)
	}
	return nil
}

// importCertificate takes the certificate of the text, unless the state directory has one that was issued later: whoever renews a certificate
// by imeproxy crypto must not lose it to the old text at the next start.
func (a *Appliance) importCertificate(x config.CryptoAction, spec tlsproxy.TrustpointSpec) error {
	id, err := a.store.Identity(x.Trustpoint)
	if len(x.PEM) == 0 {
		if err != nil {
			a.log.Warn("trustpoint has no usable certificate yet; store one by imeproxy crypto import", "line", x.Line, "trustpoint", x.Trustpoint, "err", err)
		}
		return nil
	}
	if leaf := firstCertificate(x.PEM); err == nil && leaf != nil && id.Certificate.Leaf.NotBefore.After(leaf.NotBefore) {
		a.log.Info("the state directory has a later certificate than the configuration: it stays", "line", x.Line, "trustpoint", x.Trustpoint)
		return nil
	}
	return a.store.ImportCertificate(spec, x.PEM)
}

func firstCertificate(text []byte) *x509.Certificate {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil
	}
	return c
}

// enroll makes a self-signed certificate, which the store keeps while it fits and does not end soon; with enrollment terminal it makes a
// request as long as the certificate is missing. A request that cannot be made keeps nobody from making calls.
func (a *Appliance) enroll(x config.CryptoAction, spec tlsproxy.TrustpointSpec) error {
	id, err := a.store.Identity(x.Trustpoint)
	if spec.Enrollment == "self" {
		if err == nil && !bytes.Equal(id.Certificate.Leaf.RawIssuer, id.Certificate.Leaf.RawSubject) {
			return nil // an authority's certificate was imported since
		}
		_, err = a.store.Enroll(spec)
		return err
	}
	if err == nil {
		return nil
	}
	if _, err := a.store.Enroll(spec); err != nil {
		a.log.Warn("certificate request not made", "line", x.Line, "trustpoint", x.Trustpoint, "err", err)
		return nil
	}
	a.log.Info("certificate request made: have it signed, then import the certificate", "line", x.Line, "trustpoint", x.Trustpoint, "file", a.store.Request(x.Trustpoint))
	return nil
}

// export puts the identity certificate where it can be picked up for a peer.
func (a *Appliance) export(x config.CryptoAction) {
	file, err := a.store.Publish(x.Trustpoint)
	if err != nil {
		a.log.Warn("identity certificate not exported", "line", x.Line, "trustpoint", x.Trustpoint, "err", err)
		return
	}
	a.log.Info("identity certificate exported", "line", x.Line, "trustpoint", x.Trustpoint, "file", file)
}

// CertificateRequest gives the PKCS#10 that waits to be signed for a trustpoint, as PEM.
func (a *Appliance) CertificateRequest(name string) (string, error) {
	if !slices.ContainsFunc(a.plan.Load().cfg.Trustpoints, func(t *config.Trustpoint) bool { return t.Name == name }) {
		return "", fmt.Errorf("there is no trustpoint %q in force", name)
	}
	text, err := os.ReadFile(a.store.Request(name))
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("trustpoint %s has no request: crypto ca enroll %s makes one, unless it has its certificate", name, name)
	}
	return string(text), err
}

// IdentityCertificate gives the certificate of a trustpoint as PEM, without those of the authorities above it.
func (a *Appliance) IdentityCertificate(name string) (string, error) {
	id, err := a.store.Identity(name)
	if err != nil {
		return "", err
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: id.Certificate.Leaf.Raw})), nil
}
