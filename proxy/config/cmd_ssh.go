package config

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/bcrypt"
	"golang.org/x/crypto/ssh"
)

// PasswordCost is the cost of bcrypt for passwords that are typed: some 50 ms of one core a login.
const PasswordCost = 10

func sshGlobals(m *mode) {
	m.add("enable password <password:LOGINPASSWORD> [encrypted]", "What enable asks for; sessions over SSH begin without privilege then", setEnable, nil)
	m.addNo("enable password [<password:LOGINPASSWORD> [encrypted]]", func(p *parser, _ args) { p.c.EnablePassword = "" })
	const head = "username <name:LOGIN> "
	m.add(head+"password <password:LOGINPASSWORD> [encrypted] [privilege <level:0-15>]", "A user who may log in over SSH; below privilege 15 he changes nothing", setUser, nil)
	m.add(head+"privilege <level:0-15>", "What a user may do; below 15 he changes nothing", func(p *parser, a args) {
		if u := p.user(a.Text("name")); u != nil {
			u.Privilege = a.Int("level")
		}
	}, nil)
	m.add(head+"publickey {ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp256|ecdsa-sha2-nistp384|ecdsa-sha2-nistp521} <key:KEY> [<comment:LINE>]",
		"A key that the user may log in with", addPublicKey, removePublicKey)
	m.addNo("username <name:LOGIN>", func(p *parser, a args) {
		before := len(p.c.Users)
		p.c.Users = slices.DeleteFunc(p.c.Users, func(u *User) bool { return u.Name == a.Text("name") })
		if len(p.c.Users) == before {
			p.absent(a.arg("name").Col, "user")
		}
	})
	m.add("ssh <network:NET> <mask:MASK> <interface:NAMEIF>", "Who may reach the shell over SSH, and over which interface", addSSH, removeSSH)
	m.add("ssh port <port:1024-65535>", "TCP port of SSH", func(p *parser, a args) { p.c.SSH.Port = uint16(a.Int("port")) }, nil)
	m.addNo("ssh port [<port:1024-65535>]", func(p *parser, _ args) { p.c.SSH.Port = 0 })
	m.add("ssh timeout <minutes:1-60>", "Minutes after which an idle session ends", func(p *parser, a args) {
		p.c.SSH.Timeout = time.Duration(a.Int("minutes")) * time.Minute
	}, nil)
	m.addNo("ssh timeout [<minutes:1-60>]", func(p *parser, _ args) { p.c.SSH.Timeout = 0 })
}

// user finds a user or makes him; nil when there are too many.
func (p *parser) user(name string) *User {
	if u := p.c.User(name); u != nil {
		return u
	}
	if !p.room(len(p.c.Users), "users") {
		return nil
	}
	u := &User{Pos: p.pos(), Name: name, Privilege: PrivilegeAll}
	p.c.Users = append(p.c.Users, u)
	return u
}

// hashed gives a password as a bcrypt hash alone, as an ASA keeps it.
func hashed(p *parser, a args) (Secret, bool) {
	password := Secret(a.Text("password"))
	at := a.arg("password").Col
	switch {
	case password.Masked(): // of a printed configuration: the password that stands already, if one does
	case a.Has("encrypted"):
		if _, err := bcrypt.Cost([]byte(password.Reveal())); err != nil {
			p.fail(at, "this is not an encrypted password", "a bcrypt hash, as write memory stores it, is expected; leave out encrypted to type the password itself")
			return "", false
		}
	default:
		hash, err := bcrypt.GenerateFromPassword([]byte(password.Reveal()), PasswordCost)
		if err != nil {
			p.fail(at, "the password cannot be used", err.Error())
			return "", false
		}
		password = Secret(hash)
	}
	return password, true
}

func setEnable(p *parser, a args) {
	if password, ok := hashed(p, a); ok && (!password.Masked() || p.c.EnablePassword == "") {
		p.c.EnablePassword, p.c.EnableAt = password, p.pos()
	}
}

func writeEnable(c *Config, w *writer) {
	if c.EnablePassword != "" {
		w.line("enable password %s encrypted", w.secret(c.EnablePassword))
	}
}

func setUser(p *parser, a args) {
	password, ok := hashed(p, a)
	if !ok {
		return
	}
	u := p.user(a.Text("name"))
	if u == nil {
		return
	}
	if !password.Masked() || u.Password == "" {
		u.Password = password
	}
	if a.Has("privilege") {
		u.Privilege = a.Int("level")
	}
}

func publicKey(a args) string {
	for _, w := range a.Args {
		if w.Keyword && (strings.HasPrefix(w.Text, "ssh-") || strings.HasPrefix(w.Text, "ecdsa-")) {
			return w.Text + " " + a.Text("key")
		}
	}
	return ""
}

func addPublicKey(p *parser, a args) {
	if u := p.user(a.Text("name")); u != nil && !slices.Contains(u.PublicKeys, publicKey(a)) && p.room(len(u.PublicKeys), "keys") {
		u.PublicKeys = append(u.PublicKeys, publicKey(a))
	}
}

func removePublicKey(p *parser, a args) {
	u := p.c.User(a.Text("name"))
	if u == nil || !slices.Contains(u.PublicKeys, publicKey(a)) {
		p.absent(a.arg("name").Col, "key")
		return
	}
	u.PublicKeys = slices.DeleteFunc(u.PublicKeys, func(k string) bool { return k == publicKey(a) })
}

func (p *parser) sshAccess(a args) (SSHAccess, bool) {
	from, ok := p.network(a, "network", "mask")
	return SSHAccess{Pos: p.pos(), From: from, Interface: a.Text("interface")}, ok
}

func (x SSHAccess) same(y SSHAccess) bool { return x.From == y.From && x.Interface == y.Interface }

func addSSH(p *parser, a args) {
	x, ok := p.sshAccess(a)
	if ok && !slices.ContainsFunc(p.c.SSH.Allowed, x.same) && p.room(len(p.c.SSH.Allowed), "ssh networks") {
		p.c.SSH.Allowed = append(p.c.SSH.Allowed, x)
	}
}

func removeSSH(p *parser, a args) {
	x, ok := p.sshAccess(a)
	if !ok {
		return
	}
	before := len(p.c.SSH.Allowed)
	if p.c.SSH.Allowed = slices.DeleteFunc(p.c.SSH.Allowed, x.same); len(p.c.SSH.Allowed) == before {
		p.absent(a.arg("network").Col, "ssh network")
	}
}

// ListenPort is the TCP port of SSH.
func (s SSH) ListenPort() uint16 {
	if s.Port == 0 {
		return DefaultSSHPort
	}
	return s.Port
}

// IdleTime is how long a session may stand without a key pressed and without anything shown.
func (s SSH) IdleTime() time.Duration {
	if s.Timeout == 0 {
		return DefaultSSHTimeout
	}
	return s.Timeout
}

// User finds a user by his name, or nil.
func (c *Config) User(name string) *User {
	return find(c.Users, func(u *User) bool { return u.Name == name })
}

func checkLogin(w string) error {
	for _, r := range w {
		if !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-", r)) {
			return errors.New("letters, digits, \".\", \"_\" and \"-\" are allowed")
		}
	}
	return nameUpTo(32)(w)
}

func checkKey(w string) error {
	raw, err := base64.StdEncoding.DecodeString(w)
	if err == nil {
		_, err = ssh.ParsePublicKey(raw)
	}
	if err != nil {
		return errors.New("the base64 of a public key is expected, as in a .pub file")
	}
	return nil
}

func writeUsers(c *Config, w *writer) {
	for _, u := range c.Users {
		if u.Password != "" {
			w.line("username %s password %s encrypted privilege %d", u.Name, w.secret(u.Password), u.Privilege)
		} else {
			w.line("username %s privilege %d", u.Name, u.Privilege)
		}
		for _, k := range u.PublicKeys {
			w.line("username %s publickey %s", u.Name, k)
		}
	}
}

func writeSSH(c *Config, w *writer) {
	for _, x := range c.SSH.Allowed {
		w.line("ssh %s %s", netText(x.From), x.Interface)
	}
	if c.SSH.Timeout > 0 || w.all {
		w.line("ssh timeout %d", c.SSH.IdleTime()/time.Minute)
	}
	if c.SSH.Port > 0 || w.all {
		w.line("ssh port %d", c.SSH.ListenPort())
	}
}

// ssh checks that the interfaces exist and that somebody can log in.
func (k *checker) ssh() {
	for _, x := range k.c.SSH.Allowed {
		i := k.nameif(x.Pos, x.Interface)
		switch {
		case i == nil:
		case !i.Address.IsValid():
			k.at(x.Pos, x.Interface, fmt.Sprintf("interface %s has no address", x.Interface), "add ip address to it").needs = []string{"ip"}
		default:
			k.r.SSH = append(k.r.SSH, ResolvedSSH{From: x.From, On: i})
		}
	}
	if k.c.EnablePassword.Masked() {
		k.at(k.c.EnableAt, stars, "the enable password is masked", "type the real one: a printed configuration does not hold it")
	}
	for _, u := range k.c.Users {
		if u.Password.Masked() {
			k.at(u.Pos, stars, fmt.Sprintf("the password of user %s is masked", u.Name), "type the real one: a printed configuration does not hold it")
		}
	}
	if len(k.c.SSH.Allowed) > 0 && len(k.c.Users) == 0 {
		k.at(k.c.SSH.Allowed[0].Pos, "", "nobody can log in over SSH: there is no user", "add username NAME password PASSWORD").needs = []string{"username"}
	}
}
