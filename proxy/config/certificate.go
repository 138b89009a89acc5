package config

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"regexp"
	"strings"
)

const (
	beginCertificate = "-----BEGIN CERTIFICATE-----"
	endCertificate   = "-----END CERTIFICATE-----"
	maxCertificates  = 16
	maxBodyLines     = 4000
)

var base64Line = regexp.MustCompile(`^[A-Za-z0-9+/]+=*$`)

// certificate reads the certificates that follow a command: PEM up to the last END line, or bare base64 up to quit. None need follow: on
// an ASA they are pasted at a prompt, and here `imeproxy crypto` stores them. The lines of a body are never shown in a diagnostic,
// because people paste private keys there.
func (p *parser) certificate(x CryptoAction) {
	command, words, masked, shown := p.next, p.words, p.masked, p.shown // the body's lines must not take their place
	x.Pos = p.pos()
	fail := func(line int, message, hint string) {
		p.report(Diagnostic{Line: line, Col: 1, Message: message, Hint: hint})
	}
	b := p.body()
	p.words, p.masked, p.shown = words, masked, shown
	switch {
	case b.private > 0:
		fail(b.private, "a private key does not belong into a configuration", "use `imeproxy crypto import` with a PKCS#12 file; and treat this key as disclosed")
		return
	case b.bad > 0:
		fail(b.bad, "this is not a line of a certificate", "PEM or base64 is expected, up to a line with quit or "+endCertificate)
		return
	case len(b.ders) > maxCertificates:
		fail(command+1, "too many certificates", "at most 16 are allowed in one command")
		return
	}
	for i, der := range b.ders {
		if _, err := x509.ParseCertificate(der); err != nil {
			fail(b.lines[i], "this is not a certificate", "its text may be damaged or cut off: "+strings.TrimPrefix(err.Error(), "x509: "))
			return
		}
		x.PEM = append(x.PEM, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	p.next, command = command, p.next // the action stands where its command does
	p.action(x)
	p.next = command
}

// certificateBody is what stands between the command and its end.
type certificateBody struct {
	ders    [][]byte
	lines   []int // where each begins
	private int   // line of a private key's head
	bad     int   // first line that is no base64
}

// take returns the next line without its end, or false at the text's end.
func (p *parser) take() (string, bool) {
	if p.next >= len(p.lines) {
		return "", false
	}
	line := strings.TrimSpace(strings.TrimSuffix(p.lines[p.next], "\r"))
	p.next++
	p.c.source = append(p.c.source, "")
	return line, true
}

// back gives a line back that belongs to the next command.
func (p *parser) back() {
	p.next--
	p.c.source = p.c.source[:len(p.c.source)-1]
}

func (p *parser) body() certificateBody {
	var b certificateBody
	var text strings.Builder
	start, inPEM := 0, false
	flush := func() {
		if text.Len() == 0 {
			return
		}
		der, err := base64.StdEncoding.DecodeString(text.String())
		if err != nil && b.bad == 0 {
			b.bad = start
		}
		b.ders, b.lines = append(b.ders, der), append(b.lines, start)
		text.Reset()
	}
	for n := 0; n < maxBodyLines; n++ {
		line, ok := p.take()
		switch {
		case !ok:
			if inPEM && b.bad == 0 {
				b.bad = p.next
			}
			flush()
			return b
		case line == "":
		case strings.EqualFold(line, "quit"):
			flush()
			return b
		case line == beginCertificate && !inPEM:
			flush()
			inPEM, start = true, p.next
		case strings.HasPrefix(line, "-----BEGIN"):
			if strings.Contains(line, "PRIVATE") && b.private == 0 {
				b.private = p.next
			} else if b.bad == 0 {
				b.bad = p.next
			}
			inPEM, start = true, p.next
		case strings.HasPrefix(line, "-----END") && inPEM:
			flush()
			inPEM = false
			if !p.moreCertificates() {
				return b
			}
		case base64Line.MatchString(line) && (inPEM || text.Len() > 0 || len(line) >= 20):
			if text.Len() == 0 && !inPEM {
				start = p.next
			}
			text.WriteString(line)
		case inPEM:
			if b.bad == 0 {
				b.bad = p.next
			}
		default:
			// A command follows: the body ended without quit.
			if text.Len() > 0 && b.bad == 0 {
				b.bad = p.next
			}
			p.back()
			flush()
			return b
		}
	}
	if b.bad == 0 {
		b.bad = p.next
	}
	return b
}

// moreCertificates looks behind an END line: another certificate may follow, and a quit line belongs to the body.
func (p *parser) moreCertificates() bool {
	for i := p.next; i < len(p.lines); i++ {
		switch line := strings.TrimSpace(strings.TrimSuffix(p.lines[i], "\r")); {
		case line == "":
			continue
		case strings.HasPrefix(line, "-----BEGIN"), strings.EqualFold(line, "quit"):
			return true
		}
		return false
	}
	return false
}
