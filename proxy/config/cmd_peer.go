package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

func peerGlobals(m *mode) {
	m.add("peer-server", "The server that learns routes from PSTN calls", enterPeerServer, func(p *parser, _ args) {
		if p.c.PeerServer == nil {
			p.absent(p.pos().Col, "peer-server")
			return
		}
		p.c.PeerServer = nil
	})
}

func newPeerServer(at Pos) *PeerServer {
	return &PeerServer{
		Pos: at, RingPort: DefaultRingPort, ValidatorPort: DefaultValidatorPort, BucketEntropy: DefaultBucketEntropy, CallInterval: DefaultCallInterval,
		DelayMin: DefaultDelayMin, DelayMax: DefaultDelayMax, RecordLifetime: DefaultRecordLifetime, Where: Places{},
	}
}

func enterPeerServer(p *parser, _ args) {
	p.enter(modes().peer)
	if p.peer = p.c.PeerServer; p.peer == nil {
		p.peer = newPeerServer(p.pos())
		p.c.PeerServer = p.peer
	}
}

func peerCommands(m *mode) {
	m.add("domain <domain:DOMAIN>", "Domain of the enterprise, which tickets name", func(p *parser, a args) {
		p.peer.Domain = a.Text("domain")
		p.peer.Where["domain"] = p.pos()
	}, nil)
	m.addNo("domain [<domain:DOMAIN>]", func(p *parser, a args) { p.unset(&p.peer.Domain, a.Text("domain"), a, "domain") })
	m.add("listening-interface <interface:NAMEIF>", "Where other peer servers reach this one", func(p *parser, a args) {
		p.peer.Interface = a.Text("interface")
		p.peer.Where["listening-interface"] = p.pos()
	}, nil)
	m.addNo("listening-interface [<interface:NAMEIF>]", func(p *parser, a args) { p.unset(&p.peer.Interface, a.Text("interface"), a, "interface") })
	m.add("public-address <address:HOST>", "Address that others are told, when it is translated", func(p *parser, a args) {
		p.peer.PublicAddress = netip.MustParseAddr(a.Text("address"))
		p.peer.Where["public-address"] = p.pos()
	}, nil)
	m.addNo("public-address [<address:HOST>]", func(p *parser, a args) {
		if text := a.Text("address"); text != "" && text != p.peer.PublicAddress.String() {
			p.absent(a.arg("address").Col, "public-address")
			return
		}
		p.peer.PublicAddress = netip.Addr{}
	})
	portCommand(m, "dht-port", "Port of the distributed cache", DefaultRingPort, func(s *PeerServer) *uint16 { return &s.RingPort })
	portCommand(m, "validator-port", "Port of the validator", DefaultValidatorPort, func(s *PeerServer) *uint16 { return &s.ValidatorPort })
	m.add("bootstrap-server", "This is a bootstrap server of the distributed cache", func(p *parser, _ args) { p.peer.BootstrapSelf = true },
		func(p *parser, _ args) { p.peer.BootstrapSelf = false })
	m.add("bootstrap host <host:PEERHOST> [port <port:1-65535>]", "A bootstrap server of the distributed cache", addBootstrap, nil)
	m.addNo("bootstrap host <host:PEERHOST> [port <port:1-65535>]", removeBootstrap)
	m.add("enrollment url <url:HTTPSURL>", "Authority that gives the certificate", func(p *parser, a args) {
		p.peer.EnrollmentURL = a.Text("url")
		p.peer.Where["enrollment url"] = p.pos()
	}, nil)
	m.addNo("enrollment url [<url:HTTPSURL>]", func(p *parser, a args) { p.unset(&p.peer.EnrollmentURL, a.Text("url"), a, "url") })
	m.add("enrollment trust-file <file:PEMFILE>", "File with the authority's certificate and license key", func(p *parser, a args) {
		p.peer.TrustFile = a.Text("file")
		p.peer.Where["enrollment trust-file"] = p.pos()
	}, nil)
	m.addNo("enrollment trust-file [<file:PEMFILE>]", func(p *parser, a args) { p.unset(&p.peer.TrustFile, a.Text("file"), a, "file") })
	m.add("ticket epoch <epoch:1-255> password <password:PASSWORD>", "Key of the tickets, where no uc-ime has it", func(p *parser, a args) {
		p.peer.TicketEpoch, p.peer.TicketPassword = a.Int("epoch"), Secret(a.Text("password"))
		p.peer.Where["ticket"] = p.pos()
	}, nil)
	m.addNo("ticket [epoch <epoch:1-255> [password <password:WORD>]]", func(p *parser, a args) {
		p.forgetTicket(a, &p.peer.TicketEpoch, &p.peer.TicketPassword)
	})
	vapCommands(m)
	learningCommands(m)
	m.add("alert webhook <url:WEBURL>", "Who gets alerts by HTTP POST", func(p *parser, a args) { p.peer.Webhook = a.Text("url") }, nil)
	m.addNo("alert webhook [<url:WEBURL>]", func(p *parser, a args) { p.unset(&p.peer.Webhook, a.Text("url"), a, "url") })
	fields := "{" + strings.Join(CustomerFields[:], "|") + "}"
	m.add("customer-info "+fields+" <text:TEXT>", "Whom to call about this server", func(p *parser, a args) {
		text := unquote(a.Text("text"))
		if len(text) > maxCustomerText {
			p.fail(a.arg("text").Col, fmt.Sprintf("the text has %d bytes", len(text)), fmt.Sprintf("at most %d are allowed", maxCustomerText))
			return
		}
		p.peer.Customer[customerField(a)] = text
	}, nil)
	m.addNo("customer-info "+fields+" [<text:TEXT>]", func(p *parser, a args) {
		p.unset(&p.peer.Customer[customerField(a)], unquote(a.Text("text")), a, "text")
	})
}

func customerField(a args) int { return slices.IndexFunc(CustomerFields[:], a.Has) }

func portCommand(m *mode, word, help string, otherwise uint16, of func(*PeerServer) *uint16) {
	m.add(word+" <port:1024-65535>", help, func(p *parser, a args) {
		*of(p.peer) = uint16(a.Int("port"))
		p.peer.Where[word] = p.pos()
	}, nil)
	m.addNo(word+" [<port:1024-65535>]", func(p *parser, _ args) { *of(p.peer) = otherwise })
}

func bootstrapOf(a args) BootstrapHost {
	b := BootstrapHost{Host: a.Text("host"), Port: DefaultRingPort}
	if n := a.Int("port"); n != 0 {
		b.Port = uint16(n)
	}
	return b
}

func addBootstrap(p *parser, a args) {
	b := bootstrapOf(a)
	b.Pos = p.pos()
	if slices.ContainsFunc(p.peer.Bootstraps, func(x BootstrapHost) bool { return x.Host == b.Host && x.Port == b.Port }) {
		return
	}
	if p.roomFor(len(p.peer.Bootstraps), maxPeerServerBootstrap, "bootstrap hosts") {
		p.peer.Bootstraps = append(p.peer.Bootstraps, b)
	}
}

func removeBootstrap(p *parser, a args) {
	b, before := bootstrapOf(a), len(p.peer.Bootstraps)
	p.peer.Bootstraps = slices.DeleteFunc(p.peer.Bootstraps, func(x BootstrapHost) bool { return x.Host == b.Host && x.Port == b.Port })
	if len(p.peer.Bootstraps) == before {
		p.absent(a.arg("host").Col, "bootstrap host")
	}
}

// vapCommands are the ports and users of call agents (guide lines 1678-1740).
func vapCommands(m *mode) {
	m.add("vapserver <name:NAME64> interface <interface:NAMEIF> [port <port:1024-65535>] authentication-mode {authenticated|encrypted trust-point <trustpoint:NAME128>}",
		"A port at which call agents register", setVAPServer, nil)
	m.addNo("vapserver <name:NAME64>", func(p *parser, a args) {
		before := len(p.peer.VAPServers)
		p.peer.VAPServers = slices.DeleteFunc(p.peer.VAPServers, func(x *VAPServer) bool { return x.Name == a.Text("name") })
		if len(p.peer.VAPServers) == before {
			p.absent(a.arg("name").Col, "vapserver")
		}
	})
	m.add("vapserver <name:NAME64> keepalive-interval <seconds:5-3600>", "How often a silent call agent is asked, in seconds", ofVAPServer(func(s *VAPServer, a args) {
		s.Keepalive = time.Duration(a.Int("seconds")) * time.Second
	}), nil)
	m.addNo("vapserver <name:NAME64> keepalive-interval [<seconds:5-3600>]", ofVAPServer(func(s *VAPServer, _ args) { s.Keepalive = DefaultVAPKeepalive }))
	m.add("vapserver <name:NAME64> max-connections <connections:1-256>", "How many call agents may be registered", ofVAPServer(func(s *VAPServer, a args) {
		s.MaxConnections = a.Int("connections")
	}), nil)
	m.addNo("vapserver <name:NAME64> max-connections [<connections:1-256>]", ofVAPServer(func(s *VAPServer, _ args) { s.MaxConnections = DefaultVAPConnections }))
	m.add("vapserver <name:NAME64> shutdown", "Take no call agents at it", ofVAPServer(func(s *VAPServer, _ args) { s.Shutdown = true }),
		ofVAPServer(func(s *VAPServer, _ args) { s.Shutdown = false }))
	m.add("vapuser <name:LOGIN> password <password:VAPPASSWORD>", "A call agent's user", setVAPUser, nil)
	m.addNo("vapuser <name:LOGIN> [password <password:WORD>]", func(p *parser, a args) {
		before := len(p.peer.VAPUsers)
		p.peer.VAPUsers = slices.DeleteFunc(p.peer.VAPUsers, func(x *VAPUser) bool { return x.Name == a.Text("name") })
		if len(p.peer.VAPUsers) == before {
			p.absent(a.arg("name").Col, "vapuser")
		}
	})
}

func setVAPServer(p *parser, a args) {
	s := p.peer.VAPServer(a.Text("name"))
	if s == nil {
		if !p.roomFor(len(p.peer.VAPServers), maxVAPServers, "vapservers") {
			return
		}
		s = &VAPServer{Name: a.Text("name"), Keepalive: DefaultVAPKeepalive, MaxConnections: DefaultVAPConnections}
		p.peer.VAPServers = append(p.peer.VAPServers, s)
	}
	s.Pos, s.Interface, s.Port = p.pos(), a.Text("interface"), DefaultVAPPort
	s.Encrypted, s.Trustpoint = a.Has("encrypted"), a.Text("trustpoint")
	if n := a.Int("port"); n != 0 {
		s.Port = uint16(n)
	}
}

// ofVAPServer is for settings of a server that stands already.
func ofVAPServer(set func(*VAPServer, args)) handler {
	return func(p *parser, a args) {
		s := p.peer.VAPServer(a.Text("name"))
		if s == nil {
			p.fail(a.arg("name").Col, fmt.Sprintf("there is no vapserver %q", clip(a.Text("name"))), "first set vapserver NAME interface IF authentication-mode MODE")
			return
		}
		set(s, a)
	}
}

func setVAPUser(p *parser, a args) {
	u := &VAPUser{Pos: p.pos(), Name: a.Text("name"), Password: Secret(a.Text("password"))}
	for i, old := range p.peer.VAPUsers {
		if old.Name == u.Name {
			p.peer.VAPUsers[i] = u
			return
		}
	}
	if p.roomFor(len(p.peer.VAPUsers), maxVAPUsers, "vapusers") {
		p.peer.VAPUsers = append(p.peer.VAPUsers, u)
	}
}

// learningCommands are the rules by which calls become routes (guide lines 226-318).
func learningCommands(m *mode) {
	m.add("validator bucket-entropy <value:8-384>", "What a bucket must be worth before its routes are learned", func(p *parser, a args) { p.peer.BucketEntropy = a.Int("value") }, nil)
	m.addNo("validator bucket-entropy [<value:8-384>]", func(p *parser, _ args) { p.peer.BucketEntropy = DefaultBucketEntropy })
	m.add("validator call-interval <seconds:1-604800>", "Time between two calls to one number that are validated, in seconds", func(p *parser, a args) {
		p.peer.CallInterval = time.Duration(a.Int("seconds")) * time.Second
	}, nil)
	m.addNo("validator call-interval [<seconds:1-604800>]", func(p *parser, _ args) { p.peer.CallInterval = DefaultCallInterval })
	m.add("validator delay <minimum:1-86400> <maximum:1-86400>", "Random time before a call is validated, in seconds", func(p *parser, a args) {
		lo, hi := a.Int("minimum"), a.Int("maximum")
		if hi < lo {
			p.fail(a.arg("maximum").Col, "the longest delay is below the shortest", fmt.Sprintf("it must be at least %d", lo))
			return
		}
		p.peer.DelayMin, p.peer.DelayMax = time.Duration(lo)*time.Second, time.Duration(hi)*time.Second
	}, nil)
	m.addNo("validator delay [<minimum:1-86400> <maximum:1-86400>]", func(p *parser, _ args) { p.peer.DelayMin, p.peer.DelayMax = DefaultDelayMin, DefaultDelayMax })
	m.add("validator record-lifetime <hours:1-720>", "How long a call that came in can be proven, in hours", func(p *parser, a args) {
		p.peer.RecordLifetime = time.Duration(a.Int("hours")) * time.Hour
	}, nil)
	m.addNo("validator record-lifetime [<hours:1-720>]", func(p *parser, _ args) { p.peer.RecordLifetime = DefaultRecordLifetime })
}

// peerPasswordsDiffer says whether a password is another one that both have.
func peerPasswordsDiffer(a, b *PeerServer) bool {
	if a == nil || b == nil {
		return false
	}
	if a.TicketEpoch == b.TicketEpoch && a.TicketPassword != b.TicketPassword {
		return true
	}
	for _, u := range a.VAPUsers {
		if slices.ContainsFunc(b.VAPUsers, func(x *VAPUser) bool { return x.Name == u.Name && x.Password != u.Password }) {
			return true
		}
	}
	return false
}
