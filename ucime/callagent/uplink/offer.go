package uplink

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"os"
	"strings"

	"imeproxy/ucime/callagent/config"
	"imeproxy/ucime/vap"
)

// IDOf is the VServiceId of a service: the same after a restart and on every node that has the same service.
func IDOf(s *config.Service) vap.ServiceID {
	h := sha256.Sum256([]byte("imeproxy vservice\x00" + s.Domain + "\x00" + s.Name))
	return vap.ServiceID(h[:8])
}

// offerOf is what the configuration publishes; nothing while the service is not activated.
func offerOf(cfg *config.Config) []vap.Offer {
	s := cfg.Service
	if !s.Activated {
		return nil
	}
	o := vap.Offer{Service: vap.Service{ID: IDOf(s), Name: s.Name, Domain: s.Domain, URIs: urisOf(cfg)}}
	for _, name := range s.EnrolledGroups {
		for _, p := range cfg.EnrolledGroups[name].Patterns {
			o.Patterns = append(o.Patterns, vap.Pattern(p))
		}
	}
	if g := cfg.ExclusionGroups[s.ExclusionGroup]; g != nil {
		for _, n := range g.Numbers {
			o.Exclude = append(o.Exclude, vap.Pattern(n))
		}
	}
	o.Service.MaxDIDs = uint32(min(vap.NewNumbers(o.Patterns, o.Exclude).Count(), 1<<32-1))
	if g := cfg.TrustGroups[s.TrustGroup]; g != nil {
		o.Service.Trust = vap.Trust{Trusted: g.Trusted, Domains: g.Domains, Prefixes: g.Prefixes}
	}
	return []vap.Offer{o}
}

// urisOf is how other enterprises reach this call agent: by its external addresses, else where its IME trunk listens. The user is a name
// that tells one address from another.
func urisOf(cfg *config.Config) (out []string) {
	all := cfg.Service.External
	if len(all) == 0 {
		at := cfg.IME.Listen.Addr
		all = []config.ExternalAddress{{Host: at.Addr().String(), Port: int(at.Port())}}
	}
	for _, e := range all {
		h := sha256.Sum256(fmt.Appendf(nil, "imeproxy node\x00%s\x00%s\x00%d", cfg.Service.Domain, e.Host, e.Port))
		x := hex.EncodeToString(h[:16])
		user := strings.Join([]string{x[:8], x[8:12], x[12:16], x[16:20], x[20:]}, "-")
		host := e.Host
		if strings.Contains(host, ":") {
			host = "[" + host + "]"
		}
		out = append(out, fmt.Sprintf("sip:%s@%s:%d;maddr=%s;transport=tcp", user, cfg.Service.Domain, e.Port, host))
	}
	return out
}

// trustOf reads the certificates that an encrypted connection is checked against.
func trustOf(s *config.Server) ([]byte, error) {
	if !s.Encrypted {
		return nil, nil
	}
	f, err := os.Open(s.Certificate)
	if err != nil {
		return nil, fmt.Errorf("ime-server %s: %w", s.Name, err)
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxTrust))
}

// clientConfig is what a server's connection is made of.
func clientConfig(s config.Server, trust []byte, host string) (c vap.ClientConfig, err error) {
	c = vap.ClientConfig{
		Addr: s.Addr.String(), Username: s.User, Password: s.Password, Name: cmp.Or(s.ClientName, host), RetryInterval: s.Reconnect,
	}
	if s.Encrypted {
		name, _, _ := net.SplitHostPort(c.Addr)
		c.TLS, err = trusting(s.Certificate, trust, cmp.Or(s.CertificateName, name))
	}
	if err != nil {
		return c, fmt.Errorf("ime-server %s: %w", s.Name, err)
	}
	return c, nil
}
