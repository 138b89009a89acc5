package answerfile

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // the appliance has no zone files

	"golang.org/x/crypto/bcrypt"
)

// Limits of a file.
const (
	MaxSize       = 64 << 10
	maxInterfaces = 16
	maxNTP        = 5 // as the guide says
	maxDNS        = 2
)

// Interface is a network card.
type Interface struct {
	Card, Name string // "eth0", "inside"
	Address    netip.Prefix
	MTU        int // bytes; 0: the card's own
}

// Answers are all answers; what is optional may be empty.
type Answers struct {
	HostName, Domain      string
	TimeZone              string // IANA name
	Interfaces            []Interface
	Gateway               netip.Addr
	DNS                   []netip.Addr
	NTP                   []string // names or addresses; empty: the host keeps the clock
	Administrator         string
	AdministratorPassword secret
	SecurityPassword      secret
	SSH                   netip.Prefix
	OnNetworkError        string // one of the policies; empty: see Halts

	Organization, Unit, Location, State, Country string
}

// secret is a password: typed, or as a bcrypt hash.
type secret struct{ plain, hash string }

// key is an answer: how it is read, and whether it must be there and may be there again.
type key struct {
	name     string
	required bool
	many     bool
	secret   bool // not to be shown
	set      func(a *Answers, value string) error
}

var (
	hostName  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9-]{0,62}$`)
	domain    = regexp.MustCompile(`^[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})+$`)
	digits    = regexp.MustCompile(`^[0-9.]+$`)
	userName  = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_-]{0,31}$`)
	password  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{7,71}$`)
	cardName  = regexp.MustCompile(`^[a-z][a-z0-9]{0,14}$`)
	ifName    = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_-]{0,47}$`)
	nameField = regexp.MustCompile(`^[\pL\pN][\pL\pN .&'()-]{0,63}$`)
	country   = regexp.MustCompile(`^[A-Z]{2}$`)
)

// matching gives a reader of a text.
func matching(to func(a *Answers) *string, re *regexp.Regexp, rule string) func(*Answers, string) error {
	return func(a *Answers, v string) error {
		if !re.MatchString(v) {
			return errors.New(rule)
		}
		*to(a) = v
		return nil
	}
}

const (
	// passwordRule is the guide's, with eight characters in the place of six, which imeproxy asks of a login.
	passwordRule = "must have 8 to 72 letters, digits, hyphens and underscores, begin with a letter or digit, and be no pattern such as aaabbb, qwerty or 123321"
	nameRule     = "must have up to 64 letters, digits, blanks and .&'()-"
)

var (
	administrator = func(a *Answers) *secret { return &a.AdministratorPassword }
	security      = func(a *Answers) *secret { return &a.SecurityPassword }
)

var keys = []key{
	{"host-name", true, false, false, matching(func(a *Answers) *string { return &a.HostName }, hostName, "must have up to 63 letters, digits and hyphens, and not begin with a hyphen")},
	{"domain", true, false, false, matching(func(a *Answers) *string { return &a.Domain }, domain, "must be a domain, such as a.example")},
	{"time-zone", false, false, false, setZone},
	{"interface", true, true, false, setInterface},
	{"gateway", false, false, false, setGateway},
	{"dns", true, false, false, setDNS},
	{"ntp", true, false, false, setNTP},
	{"administrator", true, false, false, matching(func(a *Answers) *string { return &a.Administrator }, userName, "must begin with a letter and have letters, digits, hyphens and underscores, 32 at most")},
	{"administrator-password", false, false, true, setPassword(administrator)},
	{"administrator-password-encrypted", false, false, true, setHash(administrator)},
	{"security-password", false, false, true, setPassword(security)},
	{"security-password-encrypted", false, false, true, setHash(security)},
	{"ssh", false, false, false, setSSH},
	{"on-network-error", false, false, false, setPolicy},
	{"organization", false, false, false, matching(func(a *Answers) *string { return &a.Organization }, nameField, nameRule)},
	{"unit", false, false, false, matching(func(a *Answers) *string { return &a.Unit }, nameField, nameRule)},
	{"location", false, false, false, matching(func(a *Answers) *string { return &a.Location }, nameField, nameRule)},
	{"state", false, false, false, matching(func(a *Answers) *string { return &a.State }, nameField, nameRule)},
	{"country", false, false, false, matching(func(a *Answers) *string { return &a.Country }, country, "must be two capital letters, such as AT")},
}

func setZone(a *Answers, v string) error {
	if _, err := time.LoadLocation(v); err != nil || v == "" || v == "Local" {
		return errors.New("must be a time zone, such as Europe/Vienna or UTC")
	}
	a.TimeZone = v
	return nil
}

func setInterface(a *Answers, v string) error {
	rule := errors.New("must be CARD NAME ADDRESS/LENGTH [mtu BYTES], such as eth0 inside 192.168.10.1/24")
	f := strings.Fields(v)
	switch {
	case len(f) > 0 && !cardName.MatchString(f[0]):
		return rule
	case len(f) > 1 && !ifName.MatchString(f[1]):
		return fieldError{rule, 1}
	case len(f) < 3:
		return fieldError{rule, len(f)}
	case len(f) > 3 && f[3] != "mtu" || len(f) > 5:
		return fieldError{rule, min(len(f)-1, 3)}
	case len(f) == 4:
		return fieldError{rule, 4}
	}
	p, err := netip.ParsePrefix(f[2])
	if err != nil || !p.Addr().Is4() || p.Bits() < 1 || p.Bits() > 30 || p.Masked().Addr() == p.Addr() {
		return fieldError{fmt.Errorf("%w: an IPv4 address of a host, with the length of its network, 1 to 30", rule), 2}
	}
	i := Interface{Card: f[0], Name: f[1], Address: p}
	if len(f) == 5 {
		if i.MTU, err = strconv.Atoi(f[4]); err != nil || i.MTU < 576 || i.MTU > 9000 {
			return fieldError{errors.New("must have an MTU of 576 to 9000 bytes; 1500 is usual"), 4}
		}
	}
	for _, other := range a.Interfaces {
		switch {
		case other.Card == i.Card:
			return fmt.Errorf("must not name %s or %s again", i.Card, i.Name)
		case other.Name == i.Name:
			return fieldError{fmt.Errorf("must not name %s or %s again", i.Card, i.Name), 1}
		case other.Address.Overlaps(p):
			return fieldError{fmt.Errorf("must not have a network that overlaps that of %s", other.Name), 2}
		}
	}
	if len(a.Interfaces) == maxInterfaces {
		return fmt.Errorf("must not stand more than %d times", maxInterfaces)
	}
	a.Interfaces = append(a.Interfaces, i)
	return nil
}

// host reads the address of a host.
func host(v string) (netip.Addr, error) {
	addr, err := netip.ParseAddr(v)
	if err != nil || !addr.Is4() || addr.IsUnspecified() || addr.IsMulticast() || addr.IsLoopback() {
		return addr, errors.New("must be the IPv4 address of a host")
	}
	return addr, nil
}

func setGateway(a *Answers, v string) error {
	addr, err := host(v)
	if err == nil {
		a.Gateway = addr
	}
	return err
}

func setDNS(a *Answers, v string) error {
	var all []netip.Addr
	for i, f := range strings.Fields(v) {
		addr, err := host(f)
		if err != nil {
			return fieldError{err, i}
		}
		all = append(all, addr)
	}
	if len(all) == 0 || len(all) > maxDNS {
		return fieldError{errors.New("must be one or two addresses"), maxDNS}
	}
	a.DNS = all
	return nil
}

func setNTP(a *Answers, v string) error {
	f := strings.Fields(v)
	if len(f) == 1 && f[0] == "none" {
		return nil
	}
	if len(f) == 0 || len(f) > maxNTP {
		return fieldError{errors.New("must be one to five servers, better three, or none"), maxNTP}
	}
	for i, s := range f {
		if _, err := host(s); err != nil && (!domain.MatchString(s) || digits.MatchString(s)) {
			return fieldError{errors.New("must be addresses or names of hosts"), i}
		}
	}
	a.NTP = f
	return nil
}

func setPassword(to func(*Answers) *secret) func(*Answers, string) error {
	return func(a *Answers, v string) error {
		if err := CheckPassword(v); err != nil {
			return err
		}
		to(a).plain = v
		return nil
	}
}

// CheckPassword says how a password breaks the rules, or nil.
func CheckPassword(v string) error {
	if !password.MatchString(v) || pattern(v) {
		return errors.New(passwordRule)
	}
	return nil
}

// pattern says whether a password is one of those that the guide calls weak: few different characters, or rows of neighbours.
func pattern(v string) bool {
	lower := strings.ToLower(v)
	different := map[rune]bool{}
	for _, r := range lower {
		different[r] = true
	}
	if len(different) < 5 {
		return true
	}
	const rows = "abcdefghijklmnopqrstuvwxyz 01234567890 qwertyuiop asdfghjkl zxcvbnm 9876543210 zyxwvutsrqponmlkjihgfedcba poiuytrewq"
	inRow := 0
	for i := 0; i+3 <= len(lower); i++ {
		if strings.Contains(rows, lower[i:i+3]) {
			inRow++
		}
	}
	return inRow*2 > len(lower)
}

func setHash(to func(*Answers) *secret) func(*Answers, string) error {
	return func(a *Answers, v string) error {
		if _, err := bcrypt.Cost([]byte(v)); err != nil || strings.ContainsAny(v, " \t") {
			return errors.New("must be a bcrypt hash, as `imeproxy answerfile generate` writes it")
		}
		to(a).hash = v
		return nil
	}
}

func setSSH(a *Answers, v string) error {
	p, err := netip.ParsePrefix(v)
	if err != nil || !p.Addr().Is4() || p.Masked() != p {
		return errors.New("must be a network, such as 192.168.10.0/24")
	}
	a.SSH = p
	return nil
}

// Parse reads a file. All mistakes are given, in the order of the file; the answers are nil with any.
func Parse(text []byte) (*Answers, []Mistake) {
	if len(text) > MaxSize {
		return nil, []Mistake{{Text: fmt.Sprintf("the file has more than %d bytes", MaxSize)}}
	}
	var a Answers
	var mistakes []Mistake
	seen := map[string]place{}
	for i, line := range strings.Split(string(text), "\n") {
		if t := strings.TrimSpace(line); t == "" || t[0] == '#' {
			continue
		}
		p, name, value := placeOf(i+1, line)
		k := find(name)
		_, again := seen[name]
		switch {
		case name == "":
			mistakes = append(mistakes, p.mistake(0, "a line is a key, a colon and its value"))
			continue
		case k == nil:
			mistakes = append(mistakes, p.mistake(0, fmt.Sprintf("%.40q is no key", name)))
			continue
		case again && !k.many:
			mistakes = append(mistakes, p.mistake(0, k.name+" must not stand twice"))
		default:
			if err := k.set(&a, value); err != nil {
				mistakes = append(mistakes, p.mistake(field(err), k.name+" "+err.Error()))
			}
		}
		seen[k.name] = p
	}
	for _, k := range keys {
		if _, ok := seen[k.name]; k.required && !ok {
			mistakes = append(mistakes, Mistake{Text: k.name + " is missing"})
		}
	}
	if len(mistakes) == 0 {
		mistakes = a.together(seen)
	}
	if len(mistakes) > 0 {
		return nil, mistakes
	}
	return &a, nil
}

func find(name string) *key {
	for i := range keys {
		if keys[i].name == name {
			return &keys[i]
		}
	}
	return nil
}

// together checks answers against each other, once each is good.
func (a *Answers) together(seen map[string]place) (mistakes []Mistake) {
	wrong := func(key, format string, args ...any) {
		text := fmt.Sprintf(format, args...)
		if p, ok := seen[key]; ok {
			mistakes = append(mistakes, p.mistake(0, text))
		} else {
			mistakes = append(mistakes, Mistake{Text: text})
		}
	}
	for _, p := range []struct {
		name string
		secret
	}{{"administrator-password", a.AdministratorPassword}, {"security-password", a.SecurityPassword}} {
		if (p.plain == "") == (p.hash == "") {
			wrong(p.name, "one of %s and %s-encrypted is expected", p.name, p.name)
		}
	}
	if a.Gateway.IsValid() && a.behind() == "" {
		wrong("gateway", "gateway %s is in no network of an interface", a.Gateway)
	}
	fields := 0
	for _, f := range []string{a.Organization, a.Unit, a.Location, a.State, a.Country} {
		if f != "" {
			fields++
		}
	}
	if fields != 0 && fields != 5 {
		wrong("organization", "organization, unit, location, state and country go together: they are the name in the certificate")
	}
	return mistakes
}

// behind is the interface that leads to the gateway.
func (a *Answers) behind() string {
	for _, i := range a.Interfaces {
		if i.Address.Contains(a.Gateway) && i.Address.Addr() != a.Gateway {
			return i.Name
		}
	}
	return ""
}
