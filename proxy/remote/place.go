package remote

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"strings"
)

// Place is a file on another host.
type Place struct {
	Host string // with the port
	User string
	// Password is empty when it must be asked for. It is a secret.
	Password string
	Path     string // absolute, or relative to the user's folder behind "~/"
}

// IsURL says whether a text is meant to be one.
func IsURL(text string) bool {
	return strings.HasPrefix(text, "scp://") || strings.HasPrefix(text, "sftp://")
}

// Parse reads a URL.
func Parse(text string) (Place, error) {
	if !IsURL(text) {
		return Place{}, errors.New("scp://USER@HOST/PATH or sftp://USER@HOST/PATH is expected")
	}
	u, err := url.Parse(text)
	if err != nil {
		return Place{}, errors.New("this is no URL: scp://USER@HOST/PATH is expected") // not the error's text, which quotes the password
	}
	p := Place{Host: u.Host, User: u.User.Username(), Path: u.Path}
	p.Password, _ = u.User.Password()
	if p.User == "" || u.Hostname() == "" {
		return Place{}, errors.New("a user and a host are expected: scp://USER@HOST/PATH")
	}
	if p.Path == "" || strings.HasSuffix(p.Path, "/") || u.RawQuery != "" || u.Fragment != "" {
		return Place{}, errors.New("the name of a file is expected at the end: scp://USER@HOST/PATH")
	}
	if u.Port() == "" {
		p.Host = net.JoinHostPort(u.Hostname(), "22")
	}
	p.Path = strings.TrimPrefix(p.Path, "/~/")
	return p, nil
}

func (p Place) String() string { return fmt.Sprintf("%s@%s %s", p.User, p.Host, p.Path) }

var password = regexp.MustCompile(`((?:scp|sftp)://[^:/@\s]*):[^/\s]*@`)

// Masked gives a text with ***** for the passwords of its URLs.
func Masked(text string) string { return password.ReplaceAllString(text, "$1:*****@") }
