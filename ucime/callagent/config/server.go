package config

import (
	"net/netip"
	"strings"
	"time"
)

// Server is the connection to a peer server (guide table 5).
type Server struct {
	Name, Description string
	Addr              netip.AddrPort
	User              string
	Password          string `json:"-"`
	Encrypted         bool
	Certificate       string // PEM file of what the server's certificate is checked against, of encrypted connections
	CertificateName   string // that the server's certificate must have, "" for its address
	Reconnect         time.Duration
	ClientName        string // "" for the host's name
}

// DefaultReconnect is the guide's reconnect interval; its range is 60 to 600 s.
const DefaultReconnect = 120 * time.Second

func imeServer(p *parser, head []token) settings {
	p.bare(head, 2)
	s := &Server{Name: p.name(head[1], 50), Reconnect: DefaultReconnect}
	p.cfg.Servers[s.Name] = s
	return settings{
		"description":      description(&s.Description),
		"address":          {"address ADDRESS [port N]", 1, 3, false, func(p *parser, a []token) { s.Addr = p.addrPort(a, 5620) }},
		"application-user": {"application-user NAME", 1, 1, false, func(p *parser, a []token) { s.User = p.word(a[0], 1, 64) }},
		"password":         {"password SECRET", 1, 1, false, func(p *parser, a []token) { s.Password = p.word(a[0], 8, 128) }},
		"security-mode": {"security-mode authenticated|encrypted", 1, 1, false, func(p *parser, a []token) {
			if s.Encrypted = a[0].text == "encrypted"; !s.Encrypted && a[0].text != "authenticated" {
				p.fail(a[0], "%q: want authenticated or encrypted", a[0].text)
			}
		}},
		"certificate":        {"certificate FILE", 1, 1, false, func(p *parser, a []token) { s.Certificate = p.path(a[0]) }},
		"certificate-name":   {"certificate-name NAME", 1, 1, false, func(p *parser, a []token) { s.CertificateName = p.domain(a[0]) }},
		"reconnect-interval": {"reconnect-interval 1-600", 1, 1, false, func(p *parser, a []token) { s.Reconnect = p.seconds(a[0], 1, 600) }},
		"client-name":        {"client-name NAME", 1, 1, false, func(p *parser, a []token) { s.ClientName = p.name(a[0], 64) }},
	}
}

func imeServerEnd(p *parser, head []token) {
	s := p.cfg.Servers[head[1].text]
	for _, x := range []struct {
		missing bool
		what    string
	}{
		{!s.Addr.IsValid(), "address"},
		{s.User == "", "application-user"},
		{s.Password == "", "password"},
		{s.Encrypted && s.Certificate == "", "certificate, without which an encrypted connection would go to anybody"},
	} {
		if x.missing {
			p.fail(head[0], "ime-server %s has no %s", s.Name, x.what)
		}
	}
	if !s.Encrypted && s.Certificate+s.CertificateName != "" {
		p.fail(head[0], "ime-server %s: a certificate is for security-mode encrypted", s.Name)
	}
}

// serversOf demands what the guide's table 12 does of a service's servers.
func serversOf(p *parser, head []token) {
	switch s := p.cfg.Service; {
	case s.Secondary != "" && s.Primary == "":
		p.fail(head[0], "service %s has a secondary-server and no primary-server", s.Name)
	case s.Secondary != "" && s.Secondary == s.Primary:
		p.fail(head[0], "service %s: primary-server and secondary-server are the same", s.Name)
	}
}

// ServersOf are the servers of the service, the primary one first.
func (c *Config) ServersOf() (out []*Server) {
	for _, name := range []string{c.Service.Primary, c.Service.Secondary} {
		if s := c.Servers[name]; s != nil {
			out = append(out, s)
		}
	}
	return out
}

// word reads a user or a secret, of which no message tells.
func (p *parser) word(t token, least, most int) string {
	if n := len(t.text); n < least || n > most {
		p.fail(t, "want %d to %d printable characters without blanks", least, most)
	}
	return t.text
}

// secretless is a line without the secret that may stand in it: messages go to logs.
func secretless(raw string) string {
	if w := words(raw, 0); len(w) > 1 && strings.HasPrefix(strings.ToLower(w[0].text), "pas") { // a word that is mistyped hides it too
		return raw[:w[1].col-1] + "*****"
	}
	return raw
}
