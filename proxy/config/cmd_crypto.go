package config

import (
	"fmt"
	"slices"
	"strconv"
)

func cryptoGlobals(m *mode) {
	m.add("crypto key generate rsa label <label:NAME128> [modulus <bits:MODULUS>]", "Make an RSA key pair", generateKey, removeKey)
	m.add("crypto key generate ecdsa label <label:NAME128> [elliptic-curve {256|384|521}]", "Make an ECDSA key pair", generateKey, removeKey)
	m.add("crypto ca trustpoint <trustpoint:NAME128>", "An identity or an authority", enterTrustpoint, func(p *parser, a args) {
		before := len(p.c.Trustpoints)
		p.c.Trustpoints = slices.DeleteFunc(p.c.Trustpoints, func(t *Trustpoint) bool { return t.Name == a.Text("trustpoint") })
		if len(p.c.Trustpoints) == before {
			p.absent(a.arg("trustpoint").Col, "trustpoint")
			return
		}
		p.removeActions(func(x CryptoAction) bool { return x.Trustpoint == a.Text("trustpoint") })
	})
	m.add("crypto ca enroll <trustpoint:NAME128>", "Make the self-signed certificate, or the request to an authority", func(p *parser, a args) {
		p.action(CryptoAction{Kind: Enroll, Trustpoint: a.Text("trustpoint")})
	}, noAction(Enroll))
	m.addBody("crypto ca authenticate <trustpoint:NAME128>", "Trust a certificate, which follows or is in the state directory", func(p *parser, a args) {
		p.certificate(CryptoAction{Kind: Authenticate, Trustpoint: a.Text("trustpoint")})
	}, noAction(Authenticate))
	m.addBody("crypto ca import <trustpoint:NAME128> certificate", "Take the box's certificate, which follows or is in the state directory", func(p *parser, a args) {
		p.certificate(CryptoAction{Kind: ImportCertificate, Trustpoint: a.Text("trustpoint")})
	}, noAction(ImportCertificate))
	m.refuse("crypto ca import <trustpoint:NAME128> pkcs12 [<passphrase:LINE>]", func(p *parser, _ args) {
		p.fail(p.words[2].Col, "PKCS#12 cannot be imported from a configuration: its passphrase would stand in the text", "use `imeproxy crypto import`")
	})
	m.add("crypto ca export <trustpoint:NAME128> identity-certificate", "Put the identity certificate where it can be picked up", func(p *parser, a args) {
		p.action(CryptoAction{Kind: ExportIdentity, Trustpoint: a.Text("trustpoint")})
	}, noAction(ExportIdentity))
	m.refuse("crypto ca export <trustpoint:NAME128> pkcs12 [<passphrase:LINE>]", func(p *parser, _ args) {
		p.fail(p.words[2].Col, "PKCS#12 cannot be exported from a configuration: its passphrase would stand in the text", "use `imeproxy crypto export`")
	})
	m.refuse("crypto key zeroize [<rest:LINE>]", func(p *parser, _ args) {
		p.fail(p.words[2].Col, "crypto key zeroize destroys a key at once and configures nothing", "remove the line that generates the key, and the key from the state directory")
	})
}

func generateKey(p *parser, a args) {
	k := CryptoAction{Kind: GenerateKey, Algorithm: "rsa", Label: a.Text("label"), Bits: a.Int("bits")}
	if k.Bits == 0 {
		k.Bits = DefaultModulus
	}
	if a.Has("ecdsa") {
		k.Algorithm, k.Bits = "ecdsa", 256
		for _, n := range []int{384, 521} {
			if a.Has(strconv.Itoa(n)) {
				k.Bits = n
			}
		}
	}
	for _, old := range p.c.CryptoActions {
		if old.Kind == GenerateKey && old.Label == k.Label && (old.Algorithm != k.Algorithm || old.Bits != k.Bits) {
			p.fail(a.arg("label").Col, fmt.Sprintf("the key pair %s is generated twice", p.quote(a.arg("label").Col, k.Label)),
				fmt.Sprintf("line %d makes it with %s %d; give one of them another label", old.Line, old.Algorithm, old.Bits))
			return
		}
	}
	p.action(k)
}

func removeKey(p *parser, a args) {
	if !p.removeActions(func(x CryptoAction) bool { return x.Kind == GenerateKey && x.Label == a.Text("label") }) {
		p.absent(a.arg("label").Col, "key pair")
	}
}

// action adds a line unless the same stands in the text already.
func (p *parser) action(x CryptoAction) {
	x.Pos = p.pos()
	for _, old := range p.c.CryptoActions {
		if old.Kind == x.Kind && old.Label == x.Label && old.Trustpoint == x.Trustpoint && string(old.PEM) == string(x.PEM) {
			return
		}
	}
	if p.room(len(p.c.CryptoActions), "crypto commands") {
		p.c.CryptoActions = append(p.c.CryptoActions, x)
	}
}

func (p *parser) removeActions(which func(CryptoAction) bool) bool {
	before := len(p.c.CryptoActions)
	p.c.CryptoActions = slices.DeleteFunc(p.c.CryptoActions, which)
	return len(p.c.CryptoActions) < before
}

func noAction(kind CryptoKind) handler {
	return func(p *parser, a args) {
		if !p.removeActions(func(x CryptoAction) bool { return x.Kind == kind && x.Trustpoint == a.Text("trustpoint") }) {
			p.absent(a.arg("trustpoint").Col, "command for this trustpoint")
		}
	}
}

func enterTrustpoint(p *parser, a args) {
	name := a.Text("trustpoint")
	p.enter(modes().trustpoint)
	if p.tp = p.c.Trustpoint(name); p.tp != nil {
		return
	}
	p.tp = &Trustpoint{Pos: p.pos(), Name: name, Where: Places{}}
	if p.room(len(p.c.Trustpoints), "trustpoints") {
		p.c.Trustpoints = append(p.c.Trustpoints, p.tp)
	}
}

func trustpointCommands(m *mode) {
	m.add("enrollment {terminal|self}", "How the certificate is obtained", func(p *parser, a args) {
		p.tp.Enrollment = "terminal"
		if a.Has("self") {
			p.tp.Enrollment = "self"
		}
		p.tp.Where["enrollment"] = p.pos()
	}, nil)
	m.addNo("enrollment [terminal|self]", func(p *parser, _ args) { p.tp.Enrollment = "" })
	m.add("subject-name <subject_name:X500>", "X.500 name in the certificate", func(p *parser, a args) {
		p.tp.SubjectName, _ = subjectName(a.Text("subject_name"))
		p.tp.Where["subject-name"] = p.pos()
	}, nil)
	m.addNo("subject-name [<subject_name:LINE>]", func(p *parser, _ args) { p.tp.SubjectName = "" })
	m.add("fqdn <fqdn:DOMAIN>", "Domain name in the certificate", func(p *parser, a args) {
		p.tp.FQDN = a.Text("fqdn")
		p.tp.Where["fqdn"] = p.pos()
	}, nil)
	m.addNo("fqdn [<fqdn:DOMAIN>]", func(p *parser, a args) { p.unset(&p.tp.FQDN, a.Text("fqdn"), a, "fqdn") })
	m.add("keypair <keypair:NAME128>", "Key pair that is certified", func(p *parser, a args) {
		p.tp.KeyPair = a.Text("keypair")
		p.tp.Where["keypair"] = p.pos()
	}, nil)
	m.addNo("keypair [<keypair:NAME128>]", func(p *parser, a args) { p.unset(&p.tp.KeyPair, a.Text("keypair"), a, "keypair") })
}
