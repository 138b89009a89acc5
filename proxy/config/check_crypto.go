package config

import (
	"fmt"
	"slices"
	"strings"
)

func (k *checker) trustpoint(pos Pos, name string) *Trustpoint {
	t := k.c.Trustpoint(name)
	if t == nil {
		missing(k, pos, "crypto ca trustpoint", name, k.c.Trustpoints, func(t *Trustpoint) string { return t.Name })
	}
	return t
}

func (k *checker) crypto() {
	for _, x := range k.c.CryptoActions {
		if x.Kind == GenerateKey {
			continue
		}
		t := k.trustpoint(x.Pos, x.Trustpoint)
		switch {
		case t == nil:
		case x.Kind == Enroll && t.Enrollment != "self" && (t.KeyPair == "" || t.SubjectName+t.FQDN == ""):
			k.warn(x.Pos, x.Trustpoint, fmt.Sprintf("trustpoint %q lacks what a request is made of", t.Name), "add keypair and subject-name to it")
		case x.Kind == ImportCertificate && t.Enrollment == "self":
			k.fail(x.Pos, x.Trustpoint, fmt.Sprintf("trustpoint %q makes its own certificate", t.Name), "use enrollment terminal for a certificate of an authority")
		case (x.Kind == Authenticate || x.Kind == ImportCertificate) && len(x.PEM) == 0:
			k.warn(x.Pos, x.Trustpoint, "no certificate follows the command", "what the state directory holds counts: store it there by `imeproxy crypto`, or add its lines and quit")
		case x.Kind == ImportCertificate && t.KeyPair == "":
			k.fail(x.Pos, x.Trustpoint, fmt.Sprintf("trustpoint %q has no keypair that the certificate could fit", t.Name), "add keypair to it")
		}
	}
	for _, t := range k.c.Trustpoints {
		if t.Enrollment != "self" {
			continue
		}
		pos := place(t.Where, "enrollment", t.Pos)
		if t.KeyPair == "" {
			k.at(pos, "self", fmt.Sprintf("the self-signed trustpoint %q has no keypair", t.Name), "add keypair to it").needs = []string{"keypair"}
		}
		if t.SubjectName == "" {
			k.at(pos, "self", fmt.Sprintf("the self-signed trustpoint %q has no subject-name", t.Name), "add subject-name cn=DOMAIN to it").needs = []string{"subject-name"}
		} else if commonName(t.SubjectName) == "" {
			k.fail(place(t.Where, "subject-name", t.Pos), "", fmt.Sprintf("the subject name of trustpoint %q has no cn", t.Name), "add cn=DOMAIN to it")
		}
	}
}

func commonName(subject string) string {
	parts, _ := parseX500(subject)
	for _, p := range parts {
		if p.attribute == "cn" {
			return p.value
		}
	}
	return ""
}

var weakCiphers = []string{"des-sha1", "null-sha1"}

// ciphers judges a list of cipher-suite keywords.
func (k *checker) ciphers(pos Pos, list []string, what string) {
	var weak []string
	for _, s := range list {
		if slices.Contains(weakCiphers, s) {
			weak = append(weak, s)
		}
	}
	switch {
	case len(weak) == 0:
	case len(weak) == len(list):
		k.fail(pos, weak[0], what+" names no strong algorithm", "add aes128-sha1, aes256-sha1 or 3des-sha1")
	default:
		k.warn(pos, weak[0], strings.Join(weak, " and ")+" is never negotiated", "leave it out")
	}
}

func (k *checker) tlsProxies() {
	k.ciphers(place(k.c.Where, "ssl encryption", Pos{}), k.c.SSLEncryption, "ssl encryption")
	for _, t := range k.c.TLSProxies {
		k.ciphers(place(t.Where, "cipher-suite", t.Pos), t.ClientCipherSuites, "the cipher suite")
		for _, side := range []struct{ keyword, name string }{{"server", t.ServerTrustpoint}, {"client", t.ClientTrustpoint}} {
			if side.name == "" {
				continue
			}
			pos := place(t.Where, side.keyword, t.Pos)
			tp := k.trustpoint(pos, side.name)
			if tp == nil {
				continue
			}
			if tp.KeyPair == "" && tp.Enrollment != "self" {
				k.warn(pos, side.name, fmt.Sprintf("trustpoint %q has no keypair", tp.Name), "add keypair to it, unless its key comes with a PKCS#12 file")
			}
			if cn := commonName(tp.SubjectName); cn != "" && checkDomain(cn) != nil {
				k.warn(place(tp.Where, "subject-name", tp.Pos), "", fmt.Sprintf("cn %q of trustpoint %q is not a domain name", clip(cn), tp.Name), "peers look for this enterprise's domain there")
			}
		}
	}
}
