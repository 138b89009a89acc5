package pvp

import (
	"errors"
	"testing"

	"imeproxy/ucime/learn"
)

// A terminator says where calls to its number go: never to the originator's own host or link.
func TestRoutesToTheReaderItself(t *testing.T) {
	for route, ok := range map[string]bool{
		"sips:edge.b.example:5061":          true,
		"sip:+14085551212@203.0.113.7:5060": true,
		"sip:+14085551212@10.1.2.3":         true, // of a ring inside
		"sip:[2001:db8::1]:5060":            true,
		"sip:localhost.example":             true,
		"sip:127.0.0.1":                     false,
		"sip:127.0.0.1:5060":                false,
		"sips:a@b@127.9.9.9;transport=tls":  false,
		"sip:user@[::1]:5060":               false,
		"sip:[::ffff:127.0.0.1]":            false,
		"sip:[fe80::1%25eth0]":              false,
		"sip:[fe80::1]":                     false,
		"sip:169.254.169.254":               false,
		"sip:224.0.1.75:5060":               false,
		"sip:0.0.0.0":                       false,
		"sip:255.255.255.255":               false,
		"sip:localhost":                     false,
		"sip:a@LOCALHOST.:5060?Subject=x":   false,
		"sip:sip.localhost;lr":              false,
		"tel:+14085551212":                  false,
		"sip:":                              false,
	} {
		if got := wireRoute(route); got != ok {
			t.Errorf("%s: %t, want %t", route, got, ok)
		}
	}
	g := &Grant{Numbers: []learn.Number{"+14085551212"}, Domain: "b.example", Routes: []string{"sip:127.0.0.1"}, Ticket: "x"}
	if _, _, err := decodeAnswer(encodeAnswer(CodeGranted, g)); !errors.Is(err, errTLV) {
		t.Errorf("an answer with such a route: %v", err)
	}
}
