package shell

import (
	"context"
	"fmt"
	"strings"
	"time"

	"imeproxy/proxy/config/keyword"
	"imeproxy/proxy/observe"
)

// PeerServer is a Backend with a co-resident peer server; with it the commands of the guide's server exist (guide lines 1552-1859).
type PeerServer interface {
	PeerServer() (observe.PeerServer, error)
	PeerRoutes() (observe.PeerRoutes, error)
	FetchDID(ctx context.Context, number string) (observe.DIDClaims, error)
	// InstallLicense installs a license file of disk0: and gives its tag and peer count.
	InstallLicense(file string) (tag string, peers int, err error)
	EnrollPeer(ctx context.Context) error
	// SetRing changes the ring's storage quota, or with 0 its message of the day.
	SetRing(quota uint32, motd string) error
}

// imeShow are the commands that look.
func imeShow(p PeerServer) []entry {
	view := func(of func(observe.PeerServer) observe.View) action {
		return func(*session, keyword.Args) (observe.View, error) {
			s, err := p.PeerServer()
			if err != nil {
				return nil, err
			}
			return of(s), nil
		}
	}
	return []entry{
		{usage: "show ime dht summary", help: "Health of the distributed cache, and its bootstrap servers", run: view(func(s observe.PeerServer) observe.View { return observe.DHTSummary{PeerServer: s} })},
		{usage: "show ime vapstatus summary", help: "Connections of call agents", run: view(func(s observe.PeerServer) observe.View { return observe.VAPStatus{PeerServer: s} })},
		{usage: "show ime vservice details", help: "What call agents have published", run: view(func(s observe.PeerServer) observe.View { return observe.VServiceDetails{PeerServer: s} })},
		{usage: "show ime vapserver [all|NAME]", pattern: "show ime vapserver [{all|<name:WORD>}]", help: "Ports at which call agents register", run: vapServers(p)},
		{usage: "show ime addressing", help: "Addresses and ports of the peer server", run: view(func(s observe.PeerServer) observe.View { return observe.IMEAddressing{PeerServer: s} })},
		{usage: "show ime peerid", help: "Peer IDs of the certificate", run: view(func(s observe.PeerServer) observe.View { return observe.IMEPeerIDs{PeerServer: s} })},
		{usage: "show ime bootstrap ip", help: "Bootstrap servers of the distributed cache", run: view(func(s observe.PeerServer) observe.View { return observe.IMEBootstraps{PeerServer: s} })},
		{usage: "show ime certenrollment", help: "License and certificate", run: view(func(s observe.PeerServer) observe.View { return observe.IMEEnrollment{PeerServer: s} })},
		{usage: "show ime validator pools", help: "What each peer has proven, and who is in the penalty box", run: view(func(s observe.PeerServer) observe.View { return observe.IMEPools{PeerServer: s} })},
		{usage: "show ime routes", help: "Routes that were learned", run: attempt(p.PeerRoutes)},
		{usage: "show perf", help: "Counters of the peer server", run: view(func(s observe.PeerServer) observe.View { return observe.Perf{Objects: s.Perf} })},
	}
}

// remoteWait bounds what waits for other machines: an operator's session is held as long.
const remoteWait = 30 * time.Second

// imeCommands administer the peer server.
func imeCommands(p PeerServer) []entry {
	return []entry{
		{usage: "show perf query class NAME", pattern: "show perf query class <name:LINE>", help: "Counters of one object", run: perfClass(p)},
		{usage: "utils ime fetch did NUMBER", pattern: "utils ime fetch did <number:WORD>", help: "Who has published a number, and who holds the record", run: func(_ *session, args keyword.Args) (observe.View, error) {
			ctx, cancel := context.WithTimeout(context.Background(), remoteWait)
			defer cancel()
			return p.FetchDID(ctx, args.Text("number"))
		}},
		{usage: "utils ime certenrollment enroll", help: "Get a certificate of the distributed cache, the first or the next", run: func(*session, keyword.Args) (observe.View, error) {
			ctx, cancel := context.WithTimeout(context.Background(), remoteWait)
			defer cancel()
			if err := p.EnrollPeer(ctx); err != nil {
				return nil, err
			}
			return lines{"The certificate was installed"}, nil
		}},
		{usage: "utils ime license file install FILE", pattern: "utils ime license file install <file:WORD>", help: "Install a license file of disk0:", run: func(_ *session, args keyword.Args) (observe.View, error) {
			tag, peers, err := p.InstallLicense(args.Text("file"))
			if err != nil {
				return nil, err
			}
			return lines{fmt.Sprintf("License %s for %d peer ID(s) was installed; a certificate is asked for at once", tag, peers)}, nil
		}},
		{usage: "set ime dht global storagequota NUMBERS", pattern: "set ime dht global storagequota <numbers:1-1000000>", help: "Numbers that each peer ID may publish, for the whole ring; on a bootstrap server alone", run: func(_ *session, args keyword.Args) (observe.View, error) {
			return lines{}, p.SetRing(uint32(args.Int("numbers")), "")
		}},
		{usage: "set ime dht global motd TEXT", pattern: "set ime dht global motd <text:LINE>", help: "Message of the day for the whole ring; on a bootstrap server alone", run: func(_ *session, args keyword.Args) (observe.View, error) {
			return lines{}, p.SetRing(0, args.Text("text"))
		}},
	}
}

func vapServers(p PeerServer) action {
	return func(_ *session, args keyword.Args) (observe.View, error) {
		s, err := p.PeerServer()
		if err != nil {
			return nil, err
		}
		name := args.Text("name")
		if name == "" {
			return observe.VAPServers{PeerServer: s}, nil
		}
		for _, v := range s.Servers {
			if v.Name == name {
				s.Servers = []observe.VAPServer{v}
				return observe.VAPServers{PeerServer: s}, nil
			}
		}
		return nil, fmt.Errorf("there is no vapserver %q", observe.Clean(name))
	}
}

func perfClass(p PeerServer) action {
	return func(_ *session, args keyword.Args) (observe.View, error) {
		s, err := p.PeerServer()
		if err != nil {
			return nil, err
		}
		want := strings.Trim(strings.TrimSpace(args.Text("name")), `"`)
		var names []string
		for _, o := range s.Perf {
			if strings.EqualFold(o.Name, want) {
				return observe.Perf{Objects: []observe.PerfObject{o}}, nil
			}
			names = append(names, o.Name)
		}
		return nil, fmt.Errorf("there is no object %q: %s", observe.Clean(want), strings.Join(names, ", "))
	}
}

// imeSettings are the guide's commands that change the configuration: each is the same as the lines of configuration mode that it stands for.
func (x *executor) imeSettings() []entry {
	set := func(usage, pattern, help string, line func(keyword.Args) string) entry {
		return entry{usage: usage, pattern: pattern, help: help, run: func(s *session, args keyword.Args) (observe.View, error) {
			if s.x.keeper.Running().PeerServer == nil {
				return nil, errNoPeerServer
			}
			var said strings.Builder
			err := s.change([]string{"peer-server", " " + line(args)}, &said)
			return told(said.String()), err
		}}
	}
	name := func(a keyword.Args) string { return a.Text("name") }
	return []entry{
		set("add ime vapserver NAME interface IF port PORT authentication-mode MODE",
			"add ime vapserver <name:WORD64> interface <interface:WORD> port <port:1024-65535> authentication-mode {authenticated|encrypted trust-point <trustpoint:WORD>}",
			"Add a port at which call agents register", func(a keyword.Args) string {
				return fmt.Sprintf("vapserver %s interface %s port %s authentication-mode %s", name(a), a.Text("interface"), a.Text("port"), vapMode(a))
			}),
		set("delete ime vapserver NAME", "delete ime vapserver <name:WORD64>", "Remove one", func(a keyword.Args) string { return "no vapserver " + name(a) }),
		set("add ime vapusercredentials NAME password PASSWORD", "add ime vapusercredentials <name:WORD> password <password:WORD>", "Add a call agent's user",
			func(a keyword.Args) string { return "vapuser " + name(a) + " password " + a.Text("password") }),
		set("delete ime vapusercredentials NAME", "delete ime vapusercredentials <name:WORD>", "Remove one", func(a keyword.Args) string { return "no vapuser " + name(a) }),
		set("set ime vapserver enabled NAME true|false", "set ime vapserver enabled <name:WORD64> {true|false}", "Take call agents at it, or not", func(a keyword.Args) string {
			if a.Has("true") {
				return "no vapserver " + name(a) + " shutdown"
			}
			return "vapserver " + name(a) + " shutdown"
		}),
		set("set ime vapserver keepaliveinterval NAME SECONDS", "set ime vapserver keepaliveinterval <name:WORD64> <seconds:5-3600>", "How often a silent call agent is asked",
			func(a keyword.Args) string {
				return "vapserver " + name(a) + " keepalive-interval " + a.Text("seconds")
			}),
		set("set ime vapserver maxconnectionsallowed NAME NUMBER", "set ime vapserver maxconnectionsallowed <name:WORD64> <number:1-256>", "How many call agents may be registered",
			func(a keyword.Args) string { return "vapserver " + name(a) + " max-connections " + a.Text("number") }),
		set("set ime addressing publicipaddrv4 ADDRESS", "set ime addressing publicipaddrv4 <address:A.B.C.D>", "Address that other peer servers are told",
			func(a keyword.Args) string { return "public-address " + a.Text("address") }),
		set("set ime validator local bucketentropy VALUE", "set ime validator local bucketentropy <value:8-384>", "What a bucket must be worth before its routes are learned",
			func(a keyword.Args) string { return "validator bucket-entropy " + a.Text("value") }),
		x.vapServerSetting("set ime vapserver port NAME PORT", "set ime vapserver port <name:WORD64> <port:1024-65535>", "Port at which call agents register"),
		x.vapServerSetting("set ime vapserver authenticationmode NAME MODE", "set ime vapserver authenticationmode <name:WORD64> {authenticated|encrypted trust-point <trustpoint:WORD>}", "With TLS or in the clear"),
	}
}

func vapMode(a keyword.Args) string {
	if a.Has("encrypted") {
		return "encrypted trust-point " + a.Text("trustpoint")
	}
	return "authenticated"
}

// vapServerSetting changes port or mode of a server that stands, and keeps the rest.
func (x *executor) vapServerSetting(usage, pattern, help string) entry {
	return entry{usage: usage, pattern: pattern, help: help, run: func(s *session, a keyword.Args) (observe.View, error) {
		c := s.x.keeper.Running()
		if c.PeerServer == nil || c.PeerServer.VAPServer(a.Text("name")) == nil {
			return nil, fmt.Errorf("there is no vapserver %q: add ime vapserver", observe.Clean(a.Text("name")))
		}
		v := c.PeerServer.VAPServer(a.Text("name"))
		port, mode := fmt.Sprint(v.Port), "authenticated"
		if v.Encrypted {
			mode = "encrypted trust-point " + v.Trustpoint
		}
		if a.Text("port") != "" {
			port = a.Text("port")
		} else {
			mode = vapMode(a)
		}
		var said strings.Builder
		err := s.change([]string{"peer-server", fmt.Sprintf(" vapserver %s interface %s port %s authentication-mode %s", v.Name, v.Interface, port, mode)}, &said)
		return told(said.String()), err
	}}
}
