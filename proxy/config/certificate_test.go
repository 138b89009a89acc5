package config

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"strings"
	"sync"
	"testing"
	"time"
)

// testCertificate is the PEM text of a self-signed certificate.
var testCertificate = sync.OnceValue(func() []byte {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	from := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "a.example"}, NotBefore: from, NotAfter: from.AddDate(1, 0, 0)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		panic(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
})

func TestCertificatesInTheText(t *testing.T) {
	cert := string(testCertificate())
	lines := strings.Split(strings.TrimSpace(cert), "\n")
	bare := strings.Join(lines[1:len(lines)-1], "\n")
	for name, body := range map[string]string{
		"PEM and quit":       cert + "quit\n",
		"PEM without quit":   cert,
		"PEM, blank, quit":   cert + "\n\nquit\n",
		"bare base64":        bare + "\nquit\n",
		"CRLF":               strings.ReplaceAll(cert+"quit\n", "\n", "\r\n"),
		"indented":           "  " + strings.ReplaceAll(cert, "\n", "\n  ") + "quit\n",
		"blank lines around": "\n\n" + cert + "\nquit\n",
	} {
		for _, command := range []string{"crypto ca authenticate t\n", "crypto ca import t certificate\n"} {
			c, found := Parse("f", []byte("crypto ca trustpoint t\n keypair k\n"+command+body+"hostname behind\n"))
			if len(found) > 0 {
				t.Errorf("%s: %s", name, found.Error())
				continue
			}
			fixedPoint(t, c)
			if len(c.CryptoActions) != 1 || !bytes.Equal(c.CryptoActions[0].PEM, testCertificate()) || c.CryptoActions[0].Line != 3 || c.Hostname != "behind" {
				t.Errorf("%s: %+v, hostname %q", name, c.CryptoActions, c.Hostname)
			}
		}
	}
	c := mustParse(t, "crypto ca trustpoint t\ncrypto ca authenticate t\n"+cert+cert+"quit\nhostname x")
	if !bytes.Equal(c.CryptoActions[0].PEM, append(append([]byte{}, testCertificate()...), testCertificate()...)) || c.Hostname != "x" {
		t.Errorf("two certificates: %s", c)
	}
}

// TestCommandsWithoutCertificate reads what an ASA takes before it asks for the certificate: the state directory holds it here.
func TestCommandsWithoutCertificate(t *testing.T) {
	for _, behind := range []string{"hostname x\n", "quit\nhostname x\n", "", "\n! nothing\n"} {
		for _, command := range []string{"crypto ca authenticate t", "crypto ca import t certificate"} {
			c, found := Load("f", []byte("crypto ca trustpoint t\n keypair k\n exit\n"+command+"\n"+behind))
			if len(found) != 1 || found[0].Severity != Warning || found[0].Line != 4 || !strings.Contains(found[0].Hint, "imeproxy crypto") {
				t.Errorf("%q: %s", command+"\n"+behind, found.Error())
			}
			if strings.Contains(behind, "hostname") && c.Hostname != "x" {
				t.Errorf("%q: the command behind it was swallowed", command)
			}
			if got := c.String(); !strings.Contains(got+"\n", "\n"+command+"\n") || strings.Contains(got, "quit") {
				t.Errorf("%q is printed as\n%s", command, got)
			}
			fixedPoint(t, c)
		}
	}
}

func TestBrokenCertificates(t *testing.T) {
	cert := string(testCertificate())
	half := cert[:len(cert)/2]
	for name, x := range map[string]struct {
		body string
		line int
		want string
	}{
		"cut off":            {half, 0, "this is not a line of a certificate"},
		"a damaged line":     {strings.Replace(cert, "\n", "\n***\n", 1) + "hostname x\n", 3, "this is not a line of a certificate"},
		"base64 of no use":   {"aGVsbG8sIHdvcmxkISBoZWxsbywgd29ybGQh\nquit\nhostname x\n", 2, "this is not a certificate"},
		"PEM of no use":      {"-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\nhostname x\n", 2, "this is not a certificate"},
		"bad base64":         {"-----BEGIN CERTIFICATE-----\naGVsbG8=a\n-----END CERTIFICATE-----\nhostname x\n", 3, "this is not a line of a certificate"},
		"bare, no end":       {"aGVsbG8sIHdvcmxkISBoZWxsbywgd29ybGQh\nhostname x\n", 3, "this is not a line of a certificate"},
		"a private key":      {"-----BEGIN PRIVATE KEY-----\nc2VjcmV0IGtleSBtYXRlcmlhbA==\n-----END PRIVATE KEY-----\nhostname x\n", 2, "a private key does not belong"},
		"key behind a cert":  {cert + "-----BEGIN EC PRIVATE KEY-----\nc2VjcmV0IGtleSBtYXRlcmlhbA==\n-----END EC PRIVATE KEY-----\nhostname x\n", 0, "a private key does not belong"},
		"another PEM block":  {"-----BEGIN CERTIFICATE REQUEST-----\naGVsbG8=\n-----END CERTIFICATE REQUEST-----\nhostname x\n", 2, "this is not a line of a certificate"},
		"seventeen in a row": {strings.Repeat(cert, 17) + "quit\nhostname x\n", 2, "too many certificates"},
	} {
		c, found := Parse("f", []byte("crypto ca authenticate t\n"+x.body))
		if len(found) != 1 || !strings.Contains(found[0].Message, x.want) || (x.line > 0 && found[0].Line != x.line) {
			t.Errorf("%s: %s", name, found.Error())
		}
		if strings.Contains(x.body, "hostname") && c.Hostname != "x" {
			t.Errorf("%s: the command behind it was swallowed", name)
		}
		if strings.Contains(found.Error(), "c2VjcmV0") {
			t.Errorf("%s: key material is shown: %s", name, found.Error())
		}
	}
	_, found := Parse("f", []byte("hostname a\n-----BEGIN RSA PRIVATE KEY-----\nc2VjcmV0\n-----END RSA PRIVATE KEY-----\nhostname b c"))
	if len(found) != 2 || found[0].Line != 2 || found[1].Line != 5 || strings.Contains(found.Error(), "c2VjcmV0") {
		t.Errorf("a key without a command: %s", found.Error())
	}
}
