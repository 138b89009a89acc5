package answerfile

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"imeproxy/proxy/config"
)

// Config gives the configuration that follows, with secrets, as it is stored. An error says what the configuration does not take.
func (a *Answers) Config() (string, error) {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("hostname %s", a.HostName)
	line("domain-name %s", a.Domain)
	inside := a.Interfaces[0]
	for _, i := range a.Interfaces {
		if i.Name == "inside" {
			inside = i
		}
		line("interface %s\n nameif %s\n ip address %s %s", i.Card, i.Name, i.Address.Addr(), mask(i.Address))
	}
	if a.Gateway.IsValid() {
		line("route %s 0.0.0.0 0.0.0.0 %s", a.behind(), a.Gateway)
	}
	line("username %s password %s", a.Administrator, a.AdministratorPassword.command())
	line("enable password %s", a.SecurityPassword.command())
	ssh := a.SSH
	if !ssh.IsValid() {
		ssh = inside.Address.Masked()
	}
	line("ssh %s %s %s", ssh.Addr(), mask(ssh), inside.Name)
	if a.Country != "" {
		line("crypto key generate rsa label identity modulus 2048")
		line("crypto ca trustpoint identity\n enrollment terminal\n fqdn %s", a.Domain)
		line(" subject-name cn=%s,ou=%s,o=%s,l=%s,st=%s,c=%s\n keypair identity", a.Domain, a.Unit, a.Organization, a.Location, a.State, a.Country)
		line("crypto ca enroll identity")
	}
	c, diags := config.Load("answers", []byte(b.String()))
	for _, d := range diags {
		if d.Severity == config.Error {
			return "", fmt.Errorf("the configuration that follows from the answers: %s: %s", d.Message, d.Hint)
		}
	}
	return c.Startup(), nil
}

// command is how a password stands in a command.
func (s secret) command() string {
	if s.hash != "" {
		return s.hash + " encrypted"
	}
	return s.plain
}

func mask(p netip.Prefix) string { return net.IP(net.CIDRMask(p.Bits(), 32)).String() }

// System is what the first process of the appliance sets, as JSON (image/init/system.go).
func (a *Answers) System() ([]byte, error) {
	s := struct {
		HostName string         `json:"host_name"`
		Domain   string         `json:"domain"`
		TimeZone string         `json:"time_zone,omitempty"`
		DNS      []netip.Addr   `json:"dns"`
		NTP      []string       `json:"ntp,omitempty"`
		MTU      map[string]int `json:"mtu,omitempty"`
	}{a.HostName, a.Domain, a.TimeZone, a.DNS, a.NTP, map[string]int{}}
	for _, i := range a.Interfaces {
		if i.MTU != 0 {
			s.MTU[i.Card] = i.MTU
		}
	}
	text, err := json.MarshalIndent(s, "", "  ")
	return append(text, '\n'), err
}
