package uplink

import (
	"errors"
	"fmt"
	"net"
	"slices"

	"imeproxy/ucime/vap"
)

// The alerts of a link (guide tables 50 to 52 and 55 to 58).
const (
	AlertCacheInactive = "IMEDistributedCacheInactive"
	AlertOverQuota     = "IMEOverQuota"
	AlertStatus        = "IMEServiceStatus"
	AlertCredentials   = "InvalidCredentials"
	AlertTCP           = "TCPSetupToIMEFailed"
	AlertTLS           = "TLSConnectionToIMEFailed"
)

var alerts = []string{AlertCacheInactive, AlertOverQuota, AlertStatus, AlertCredentials, AlertTCP, AlertTLS}

// Health is the counter IMEServiceStatus of the guide's table 39.
type Health uint64

// The states.
const (
	Unknown   Health = 0 // no server, or the service is not activated
	Healthy   Health = 1 // registered with every server of the service
	Unhealthy Health = 2
)

// Health tells the state of the connections as a whole.
func (l *Link) Health() Health {
	all := l.Status()
	if len(all) == 0 {
		return Unknown
	}
	for _, s := range all {
		if !s.Registered {
			return Unhealthy
		}
	}
	return Healthy
}

// watch looks at a server each time that its state changes.
func (l *Link) watch(s *server) {
	for {
		changed := s.client.Changed()
		l.look(s)
		select {
		case <-changed:
		case <-s.ctx.Done():
			return
		}
	}
}

// look raises the alerts that a server asks for, and ends those that none does. A server that was taken out of use asks for none.
func (l *Link) look(s *server) {
	l.alerting.Lock()
	defer l.alerting.Unlock()
	found := l.conditions(s)
	l.mu.Lock()
	used := slices.Contains(l.servers, s)
	s.failed = found
	l.broadcast()
	l.mu.Unlock()
	if used && s.ctx.Err() == nil {
		for name, detail := range found {
			l.o.Alert(name, detail)
		}
	}
	l.settle()
}

// conditions are the alerts that a server's state asks for, with what they say.
func (l *Link) conditions(s *server) map[string]string {
	out := map[string]string{}
	at := fmt.Sprintf("%s at %s", s.cfg.Name, s.cfg.Addr)
	r := s.client.Registration()
	if !r.Registered {
		var refusal *vap.Error
		var network *net.OpError
		switch {
		case r.Cause == nil:
			return out // nothing was tried yet
		case errors.Is(r.Cause, vap.ErrTLS):
			out[AlertTLS] = fmt.Sprintf("%s: %v", at, r.Cause)
		case errors.Is(r.Cause, vap.ErrStranger), errors.As(r.Cause, &refusal) && refusal.Code == vap.CodeIntegrity:
			out[AlertCredentials] = fmt.Sprintf("%s does not take user %s with the password that is configured", at, s.cfg.User)
		case errors.As(r.Cause, &network) && network.Op == "dial":
			out[AlertTCP] = fmt.Sprintf("%s: %v", at, r.Cause)
		}
		out[AlertStatus] = fmt.Sprintf("%s: not registered: %v", at, r.Cause)
		return out
	}
	l.mu.Lock()
	service := l.service
	l.mu.Unlock()
	switch p := r.Services[service]; p.Code {
	case vap.CodeQuota:
		out[AlertOverQuota] = fmt.Sprintf("%s: %d numbers, at most %d are allowed", at, r.Quota.Current, r.Quota.Target)
	case vap.CodeResponder:
		out[AlertCacheInactive] = fmt.Sprintf("%s does not publish now: %s", at, p.Err)
	}
	return out
}

// settle ends the alerts that no server asks for; with alerting held.
func (l *Link) settle() {
	l.mu.Lock()
	standing := map[string]bool{}
	for _, s := range l.servers {
		for name := range s.failed {
			standing[name] = true
		}
	}
	l.mu.Unlock()
	for _, name := range alerts {
		if !standing[name] {
			l.o.Alert(name, "")
		}
	}
}
