package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// settings are what `imeproxy answerfile install` writes (proxy/answerfile): all of the answers that is no matter of the proxy.
type settings struct {
	HostName string            `json:"host_name"`
	Domain   string            `json:"domain"`
	TimeZone string            `json:"time_zone"`
	DNS      []string          `json:"dns"`
	NTP      []string          `json:"ntp"`
	MTU      map[string]uint32 `json:"mtu"`
}

// applySettings brings the stored settings into force. What cannot be is told; the machine goes on.
func (m *machine) applySettings() {
	text, err := os.ReadFile(systemFile)
	if err != nil {
		return
	}
	var s settings
	if err := json.Unmarshal(text, &s); err != nil {
		m.say("%s: %v", systemFile, err)
		return
	}
	if err := unix.Sethostname([]byte(s.HostName)); err != nil {
		m.say("host name: %v", err)
	}
	var resolv strings.Builder
	fmt.Fprintf(&resolv, "search %s\n", s.Domain)
	for _, a := range s.DNS {
		fmt.Fprintf(&resolv, "nameserver %s\n", a)
	}
	if err := os.WriteFile("/run/resolv.conf", []byte(resolv.String()), 0o644); err != nil {
		m.say("name servers: %v", err)
	}
	for card, size := range s.MTU {
		if err := setMTU(card, size); err != nil {
			m.say("%v", err)
		}
	}
	m.settings.Store(&s)
}

func setMTU(card string, size uint32) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq(card)
	if err == nil {
		req.SetUint32(size)
		err = unix.IoctlIfreq(fd, unix.SIOCSIFMTU, req)
	}
	if err != nil {
		return fmt.Errorf("MTU of %s: %w", card, err)
	}
	return nil
}

// zone is what programs that show times are given.
func (m *machine) zone() []string {
	if s := m.settings.Load(); s != nil && s.TimeZone != "" {
		return []string{"TZ=" + s.TimeZone}
	}
	return nil
}
