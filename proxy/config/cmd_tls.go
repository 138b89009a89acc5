package config

import (
	"slices"
	"strings"
)

// cipherPattern is up to five cipher-suite keywords.
func cipherPattern() string {
	one := "{" + strings.Join(ciphers, "|") + "}"
	return one + strings.Repeat(" ["+one, len(ciphers)-1) + strings.Repeat("]", len(ciphers)-1)
}

// cipherList is the keywords of a command, each once, in the order typed: the first is preferred.
func cipherList(a args) []string {
	var out []string
	for _, w := range a.Args {
		if w.Keyword && slices.Contains(ciphers, w.Text) && !slices.Contains(out, w.Text) {
			out = append(out, w.Text)
		}
	}
	return out
}

func tlsGlobals(m *mode) {
	m.add("tls-proxy maximum-sessions <sessions:1-65535>", "Limit of TLS proxy sessions", func(p *parser, a args) {
		p.c.TLSProxyMaxSessions = a.Int("sessions")
		p.c.Where["tls-proxy maximum-sessions"] = p.pos()
	}, nil)
	m.addNo("tls-proxy maximum-sessions [<sessions:1-65535>]", func(p *parser, _ args) { p.c.TLSProxyMaxSessions = 0 })
	m.add("tls-proxy <name:NAME64>", "Identities of one direction", enterTLSProxy, func(p *parser, a args) {
		before := len(p.c.TLSProxies)
		p.c.TLSProxies = slices.DeleteFunc(p.c.TLSProxies, func(t *TLSProxy) bool { return t.Name == a.Text("name") })
		if len(p.c.TLSProxies) == before {
			p.absent(a.arg("name").Col, "tls-proxy")
		}
	})
	m.add("ssl encryption "+cipherPattern(), "Algorithms that TLS may use", func(p *parser, a args) {
		p.c.SSLEncryption = cipherList(a)
		p.c.Where["ssl encryption"] = p.pos()
	}, func(p *parser, _ args) { p.c.SSLEncryption = nil })
	m.addNo("ssl encryption", func(p *parser, _ args) { p.c.SSLEncryption = nil })
	m.add("ssl client-version <version:TLSVERSION>", "TLS version as a client", func(p *parser, a args) {
		p.c.SSLClientVersion = strings.ToLower(a.Text("version"))
	}, nil)
	m.addNo("ssl client-version [<version:TLSVERSION>]", func(p *parser, _ args) { p.c.SSLClientVersion = "" })
	m.add("ssl server-version <version:TLSVERSION>", "TLS version as a server", func(p *parser, a args) {
		p.c.SSLServerVersion = strings.ToLower(a.Text("version"))
	}, nil)
	m.addNo("ssl server-version [<version:TLSVERSION>]", func(p *parser, _ args) { p.c.SSLServerVersion = "" })
}

func enterTLSProxy(p *parser, a args) {
	name := a.Text("name")
	p.enter(modes().tls)
	if p.tls = p.c.TLSProxy(name); p.tls != nil {
		return
	}
	p.tls = &TLSProxy{Pos: p.pos(), Name: name, Where: Places{}}
	if p.room(len(p.c.TLSProxies), "tls-proxies") {
		p.c.TLSProxies = append(p.c.TLSProxies, p.tls)
	}
}

func tlsCommands(m *mode) {
	m.add("server trust-point <trustpoint:NAME128>", "Identity as a TLS server", func(p *parser, a args) {
		p.tls.ServerTrustpoint = a.Text("trustpoint")
		p.tls.Where["server"] = p.pos()
	}, nil)
	m.addNo("server trust-point [<trustpoint:NAME128>]", func(p *parser, a args) {
		p.unset(&p.tls.ServerTrustpoint, a.Text("trustpoint"), a, "trustpoint")
	})
	m.add("client trust-point <trustpoint:NAME128>", "Identity as a TLS client", func(p *parser, a args) {
		p.tls.ClientTrustpoint = a.Text("trustpoint")
		p.tls.Where["client"] = p.pos()
	}, nil)
	m.addNo("client trust-point [<trustpoint:NAME128>]", func(p *parser, a args) {
		p.unset(&p.tls.ClientTrustpoint, a.Text("trustpoint"), a, "trustpoint")
	})
	m.add("client cipher-suite "+cipherPattern(), "Cipher suites as a TLS client", func(p *parser, a args) {
		p.tls.ClientCipherSuites = cipherList(a)
		p.tls.Where["cipher-suite"] = p.pos()
	}, func(p *parser, _ args) { p.tls.ClientCipherSuites = nil })
	m.addNo("client cipher-suite", func(p *parser, _ args) { p.tls.ClientCipherSuites = nil })
}
