package config

import (
	"fmt"
	"slices"
)

// ResolvedPeerServer is a peer server with its names followed.
type ResolvedPeerServer struct {
	*PeerServer
	Domain     string
	On         *Interface // where the ring and the validator are reached
	Epoch      int        // of the tickets: its own, or the uc-ime's
	Password   Secret
	VAPServers []ResolvedVAPServer
}

// ResolvedVAPServer is a VAP server on its interface; those that are shut down are left out.
type ResolvedVAPServer struct {
	*VAPServer
	On *Interface
}

func (k *checker) peerServer() {
	s := k.c.PeerServer
	if s == nil {
		return
	}
	r := &ResolvedPeerServer{PeerServer: s, Domain: s.Domain}
	k.r.PeerServer = r
	if r.Domain == "" {
		r.Domain = k.c.DomainName
	}
	if r.Domain == "" {
		k.at(s.Pos, "", "the peer-server has no domain, which its tickets must name", "add domain DOMAIN to it, or domain-name DOMAIN").needs = []string{"domain", "domain-name"}
	}
	r.On = k.peerInterface(s)
	if len(s.Bootstraps) == 0 && !s.BootstrapSelf {
		k.at(s.Pos, "", "the peer-server knows no bootstrap server, so that it cannot join the distributed cache", "add bootstrap host ADDRESS, or bootstrap-server").needs = []string{"bootstrap", "bootstrap-server"}
	}
	if s.EnrollmentURL == "" || s.TrustFile == "" {
		k.at(s.Pos, "", "the peer-server has no enrollment, without which it gets no certificate", "add enrollment url URL and enrollment trust-file FILE").needs = []string{"enrollment"}
	}
	k.peerTicket(s, r)
	k.vapServers(s, r)
}

func (k *checker) peerInterface(s *PeerServer) *Interface {
	if s.Interface == "" {
		k.at(s.Pos, "", "the peer-server has no listening-interface", "add listening-interface NAME, that of the Internet").needs = []string{"listening-interface"}
		return nil
	}
	pos := place(s.Where, "listening-interface", s.Pos)
	i := k.nameif(pos, s.Interface)
	if i == nil {
		return nil
	}
	k.usable(pos, i, "other peer servers reach this one at it")
	if s.RingPort == s.ValidatorPort {
		k.fail(place(s.Where, "validator-port", place(s.Where, "dht-port", s.Pos)), "", fmt.Sprintf("dht-port and validator-port are both %d", s.RingPort), "give each a port of its own")
	}
	return i
}

// usable reports an interface without an address.
func (k *checker) usable(pos Pos, i *Interface, why string) {
	if !i.Address.IsValid() || i.Shutdown {
		k.at(pos, i.Nameif, fmt.Sprintf("interface %s has no address, or is shut down; %s", i.Nameif, why), "add ip address to it, or no shutdown").needs = []string{"ip", "shutdown"}
	}
}

func (k *checker) peerTicket(s *PeerServer, r *ResolvedPeerServer) {
	u := k.c.UCIME
	pos := place(s.Where, "ticket", s.Pos)
	switch {
	case s.TicketEpoch != 0 && u != nil:
		k.fail(pos, "ticket", "the peer-server issues tickets by the epoch and password of the uc-ime", "remove this line; uc-ime "+u.Name+" has them")
	case s.TicketEpoch != 0 && s.TicketPassword.Masked():
		k.fail(pos, "password", "the password is masked", "type the real one; a printed configuration shows ***** in its place")
	case s.TicketEpoch != 0:
		r.Epoch, r.Password = s.TicketEpoch, s.TicketPassword
	case u != nil:
		r.Epoch, r.Password = u.TicketEpoch, u.TicketPassword
	default:
		k.at(s.Pos, "", "the peer-server has no ticket epoch and password", "add ticket epoch N password PASSWORD, those of the proxy at the edge").needs = []string{"ticket"}
	}
}

func (k *checker) vapServers(s *PeerServer, r *ResolvedPeerServer) {
	if len(s.VAPServers) == 0 {
		k.warn(s.Pos, "", "the peer-server has no vapserver: no call agent can register", "add vapserver NAME interface inside authentication-mode encrypted trust-point NAME")
	}
	if len(s.VAPServers) > 0 && len(s.VAPUsers) == 0 {
		k.warn(s.Pos, "", "the peer-server has no vapuser: no call agent can register", "add vapuser NAME password PASSWORD")
	}
	for _, u := range s.VAPUsers {
		if u.Password.Masked() {
			k.fail(u.Pos, "password", "the password is masked", "type the real one; a printed configuration shows ***** in its place")
		}
	}
	for n, v := range s.VAPServers {
		i := k.nameif(v.Pos, v.Interface)
		if v.Encrypted && k.c.Trustpoint(v.Trustpoint) == nil {
			missing(k, v.Pos, "crypto ca trustpoint", v.Trustpoint, k.c.Trustpoints, func(t *Trustpoint) string { return t.Name })
		}
		if i == nil {
			continue
		}
		k.usable(v.Pos, i, "call agents register at it")
		if slices.ContainsFunc(s.VAPServers[:n], func(x *VAPServer) bool { return x.Interface == v.Interface && x.Port == v.Port }) ||
			v.Interface == s.Interface && (v.Port == s.RingPort || v.Port == s.ValidatorPort) {
			k.fail(v.Pos, fmt.Sprint(v.Port), fmt.Sprintf("port %d of interface %s is taken by another part of the peer-server", v.Port, v.Interface), "give each vapserver a port of its own")
		}
		if !v.Encrypted {
			k.warn(v.Pos, "authenticated", fmt.Sprintf("records of calls and tickets go to and from vapserver %s without encryption", v.Name), "use authentication-mode encrypted")
		}
		if !v.Shutdown {
			r.VAPServers = append(r.VAPServers, ResolvedVAPServer{v, i})
		}
	}
}
