package config

import (
	"errors"
	"fmt"
	"math/bits"
	"net/netip"
	"net/url"
	"path"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"

	"imeproxy/proxy/config/keyword"
)

// ports are the names that an ASA knows for ports, as far as they concern TCP or UDP traffic of such a site.
var ports = map[string]uint16{
	"bootpc": 68, "bootps": 67, "domain": 53, "ftp": 21, "ftp-data": 20, "h323": 1720, "http": 80, "https": 443, "imap4": 143,
	"kerberos": 750, "ldap": 389, "ldaps": 636, "nfs": 2049, "ntp": 123, "pop3": 110, "radius": 1645, "radius-acct": 1646,
	"rtsp": 554, "sip": 5060, "smtp": 25, "snmp": 161, "snmptrap": 162, "ssh": 22, "sunrpc": 111, "syslog": 514, "tacacs": 49,
	"telnet": 23, "tftp": 69, "www": 80,
}

// ciphers are the keywords of cipher suites, in the order in which an ASA prints them.
var ciphers = []string{"3des-sha1", "aes128-sha1", "aes256-sha1", "des-sha1", "null-sha1"}

var (
	hostLabel = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$`)
	dotted    = regexp.MustCompile(`^[0-9.]+$`)
)

func defineKinds(t *keyword.Tree[command]) {
	define := func(name, label string, check func(string) error) {
		t.Define(name, keyword.Kind{Label: label, Check: check})
	}
	define("NAME64", "WORD", nameUpTo(64))
	define("NAME128", "WORD", nameUpTo(128))
	define("NAME241", "WORD", nameUpTo(241))
	define("OBJECT", "WORD", checkObjectName)
	define("NAMEIF", "WORD", checkNameif)
	define("LINK", "WORD", checkLink)
	define("HOSTNAME", "WORD", checkHostname)
	define("DOMAIN", "WORD", checkDomain)
	define("ADDRESS", "A.B.C.D", checkAddress)
	define("HOST", "A.B.C.D", checkHost)
	define("NET", "A.B.C.D", checkNet)
	define("MASK", "A.B.C.D", checkMask)
	define("MAPPED", "A.B.C.D|WORD", checkMapped)
	define("PAIR", "(REAL,MAPPED)", checkPair)
	define("PASSWORD", "WORD", passwordOf(10, 64))
	define("LOGIN", "WORD", checkLogin)
	define("LOGINPASSWORD", "WORD", passwordOf(8, 72))
	define("KEY", "BASE64", checkKey)
	define("FBS", "FILE.fbs", checkFBS)
	define("PREFIX", "+DIGITS", checkPrefix)
	t.Define("DSCP", keyword.Kind{Label: "WORD", Check: checkDSCP, Suggest: dscpNames})
	define("SYSLOGPORT", "udp/PORT", checkSyslogPort)
	define("PEERHOST", "A.B.C.D|NAME", checkPeerHost)
	define("HTTPSURL", "URL", checkURL("https"))
	define("WEBURL", "URL", checkURL("https", "http"))
	define("PEMFILE", "FILE.pem|FILE.txt", checkPEMFile)
	define("VAPPASSWORD", "WORD", passwordOf(8, 128))
	define("MODULUS", "<2048-8192>", checkModulus)
	t.Define("PORT", keyword.Kind{Label: "<1-65535>", Check: checkPort, Suggest: portNames})
	t.Define("TLSVERSION", keyword.Kind{Label: "WORD", Check: checkTLSVersion, Suggest: func() []string { return []string{"tlsv1.2", "tlsv1.3"} }})
	t.Define("TEXT", keyword.Kind{Label: "LINE", Rest: true, Check: checkText})
	t.Define("X500", keyword.Kind{Label: "LINE", Rest: true, Check: func(s string) error { _, err := subjectName(s); return err }})
}

func portNames() []string {
	out := make([]string, 0, len(ports))
	for n := range ports {
		out = append(out, n)
	}
	sort.Strings(out)
	return out
}

func nameUpTo(n int) func(string) error {
	return func(w string) error {
		for _, r := range w {
			if r < 0x21 || r > 0x7e {
				return errors.New("a name has printable ASCII characters only")
			}
		}
		if len(w) > n {
			return fmt.Errorf("at most %d characters are allowed, this has %d", n, len(w))
		}
		return nil
	}
}

// checkObjectName keeps apart names and addresses, which stand in the same place of a nat command.
func checkObjectName(w string) error {
	if dotted.MatchString(w) || strings.EqualFold(w, "interface") {
		return errors.New("an object's name must not look like an address or be \"interface\"")
	}
	return nameUpTo(64)(w)
}

func checkNameif(w string) error {
	if strings.ContainsAny(w, "(),") {
		return errors.New("a name of an interface holds no parenthesis and no comma")
	}
	return nameUpTo(48)(w)
}

// checkLink is the kernel's own rule (dev_valid_name): at most 15 bytes, no slash, no colon.
func checkLink(w string) error {
	if err := nameUpTo(15)(w); err != nil || w == "." || w == ".." || strings.ContainsAny(w, "/:") {
		return errors.New("the name of a Linux interface is expected, as `ip link` prints it (at most 15 characters, no \"/\")")
	}
	return nil
}

func checkHostname(w string) error {
	if !hostLabel.MatchString(w) {
		return errors.New("letters, digits and hyphens are allowed, at most 63, with a letter or digit at both ends")
	}
	return nil
}

func checkDomain(w string) error {
	labels := strings.Split(w, ".")
	for _, l := range labels {
		if !hostLabel.MatchString(l) {
			return errors.New("a domain name is expected, such as enterprise-a.example")
		}
	}
	if len(w) > 253 || strings.EqualFold(w, "none") || dotted.MatchString(w) {
		return errors.New("a domain name is expected, such as enterprise-a.example")
	}
	return nil
}

func checkAddress(w string) error {
	if a, err := netip.ParseAddr(w); err != nil || !a.Is4() {
		return errors.New("an IPv4 address of four numbers is expected, such as 192.168.10.30")
	}
	return nil
}

func checkHost(w string) error {
	if err := checkAddress(w); err != nil {
		return err
	}
	a := netip.MustParseAddr(w)
	if a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() || a.As4()[0] == 0 || a.As4()[0] >= 240 {
		return errors.New("the address of one host is expected; this one is reserved")
	}
	return nil
}

// checkNet also takes the 0 that an ASA takes for 0.0.0.0.
func checkNet(w string) error {
	if w == "0" {
		return nil
	}
	return checkAddress(w)
}

func checkMask(w string) error {
	_, err := maskBits(w)
	return err
}

// maskBits is the length of the prefix that a mask stands for.
func maskBits(w string) (int, error) {
	if w == "0" {
		return 0, nil
	}
	if checkAddress(w) != nil {
		return 0, errors.New("a network mask is expected, such as 255.255.255.0")
	}
	b := netip.MustParseAddr(w).As4()
	v := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	n := bits.LeadingZeros32(^v)
	if bits.OnesCount32(v) == n {
		return n, nil
	}
	if w := ^v; bits.OnesCount32(w) == bits.LeadingZeros32(^w) {
		return 0, fmt.Errorf("this is a wildcard; an ASA takes the network mask %s", maskText(bits.OnesCount32(w)))
	}
	return 0, errors.New("the ones of a network mask stand together, as in 255.255.255.0")
}

func maskText(n int) string {
	v := ^uint32(0)
	if n < 32 {
		v = ^(v >> n)
	}
	return netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)}).String()
}

func checkMapped(w string) error {
	if dotted.MatchString(w) {
		return checkHost(w)
	}
	return checkObjectName(w)
}

func checkPair(w string) error {
	_, _, err := natPair(w)
	return err
}

func natPair(w string) (realName, mapped string, err error) {
	body, opened := strings.CutPrefix(w, "(")
	body, closed := strings.CutSuffix(body, ")")
	realName, mapped, comma := strings.Cut(body, ",")
	if !opened || !closed || !comma || realName == "" || mapped == "" || checkNameif(realName) != nil || checkNameif(mapped) != nil {
		return "", "", errors.New("two names of interfaces are expected, such as (inside,outside)")
	}
	if realName == mapped {
		return "", "", errors.New("the real and the mapped interface are the same")
	}
	return realName, mapped, nil
}

// passwordOf checks a password of lo to hi characters; that of a printed configuration is taken too.
func passwordOf(lo, hi int) func(string) error {
	return func(w string) error {
		if Secret(w).Masked() {
			return nil
		}
		for _, r := range w {
			if r < 0x21 || r > 0x7e {
				return errors.New("a password has printable US-ASCII characters only (codes 0x21 to 0x7e)")
			}
		}
		if len(w) < lo || len(w) > hi {
			return fmt.Errorf("a password has %d to %d characters, this has %d", lo, hi, len(w))
		}
		return nil
	}
}

func checkFBS(w string) error {
	if err := nameUpTo(255)(w); err != nil {
		return err
	}
	if path.Ext(w) != ".fbs" || path.Base(w) == ".fbs" || strings.Contains(w, "..") {
		return errors.New("the name of a file that ends in .fbs is expected")
	}
	return nil
}

// checkPeerHost takes the address or the name of a host.
func checkPeerHost(w string) error {
	if dotted.MatchString(w) {
		return checkHost(w)
	}
	return checkDomain(w)
}

func checkURL(schemes ...string) func(string) error {
	return func(w string) error {
		u, err := url.Parse(w)
		if err != nil || !slices.Contains(schemes, u.Scheme) || u.Hostname() == "" || u.User != nil || len(w) > 1024 {
			return fmt.Errorf("a URL is expected, such as %s://host.example:8443, without user and password", schemes[0])
		}
		return nil
	}
}

func checkPEMFile(w string) error {
	if err := nameUpTo(255)(w); err != nil {
		return err
	}
	if ext := path.Ext(w); ext != ".pem" && ext != ".txt" || path.Base(w) == ext || strings.Contains(w, "..") {
		return errors.New("the name of a file that ends in .pem or .txt is expected")
	}
	return nil
}

func checkModulus(w string) error {
	n, err := strconv.Atoi(w)
	switch {
	case err != nil || !dotted.MatchString(w):
		return errors.New("a whole number from 2048 to 8192 is expected")
	case n < DefaultModulus:
		return errors.New("a key of less than 2048 bits is weak and refused; the allowed range is 2048-8192")
	case n > 8192 || n%8 != 0:
		return errors.New("the allowed range is 2048-8192, in steps of 8")
	}
	return nil
}

func checkPort(w string) error {
	if _, ok := ports[strings.ToLower(w)]; ok {
		return nil
	}
	if n, err := strconv.Atoi(w); err != nil || n < 1 || n > 65535 || !dotted.MatchString(w) {
		return errors.New("a port from 1 to 65535 is expected, or its name, such as sip")
	}
	return nil
}

// portNumber is the port that checkPort accepted.
func portNumber(w string) uint16 {
	if n, ok := ports[strings.ToLower(w)]; ok {
		return n
	}
	n, _ := strconv.ParseUint(w, 10, 16)
	return uint16(n)
}

func checkTLSVersion(w string) error {
	switch strings.ToLower(w) {
	case "tlsv1.2", "tlsv1.3":
		return nil
	}
	return errors.New("this appliance speaks tlsv1.2 and tlsv1.3 only, never an older version; leave the command out to allow both")
}

func checkText(s string) error {
	if unquote(s) == "" {
		return errors.New("a text is expected")
	}
	return nil
}

// unquote takes off the quotation marks around a text, of either kind, unless there are more of them inside.
func unquote(s string) string {
	s = plainQuotes(strings.TrimSpace(s))
	if len(s) >= 2 && s[0] == '"' && s[len(s)-1] == '"' && !strings.Contains(s[1:len(s)-1], `"`) {
		return strings.TrimSpace(s[1 : len(s)-1])
	}
	return s
}

// plainQuotes replaces the quotation marks of printed text.
func plainQuotes(s string) string {
	return strings.NewReplacer("“", `"`, "”", `"`, "„", `"`, "‟", `"`, "‘", "'", "’", "'").Replace(s)
}

// checkPrefix takes the beginning of an E.164 number. A + alone is the beginning of all.
func checkPrefix(w string) error {
	digits, ok := strings.CutPrefix(w, "+")
	if !ok || len(digits) > 15 || strings.Trim(digits, "0123456789") != "" {
		return errors.New("the beginning of numbers is expected: + and up to 15 digits")
	}
	return nil
}
