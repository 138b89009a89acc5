package shell

import (
	"context"
	"fmt"
	"io"
	"strings"

	"imeproxy/proxy/config"
	"imeproxy/proxy/observe"
)

// cryptoCA takes a line `crypto ca VERB TRUSTPOINT ...` apart; an empty name: it is none.
func cryptoCA(line, verb string) (trustpoint string) {
	f := strings.Fields(line)
	if len(f) < 4 || !strings.HasPrefix("crypto", strings.ToLower(f[0])) || !strings.EqualFold(f[1], "ca") || len(f[2]) < 2 || !strings.HasPrefix(verb, strings.ToLower(f[2])) {
		return ""
	}
	return f[3]
}

// enroll asks the questions of an ASA before the enrolment of a trustpoint is carried out (guide lines 5190-5196). t is the line, after what it has
// finished of a sub-mode.
func (s *session) enroll(name string, t config.Typed, w io.Writer) error {
	tp := s.x.keeper.Running().Trustpoint(name)
	subject, fqdn, self := "", "", false
	if tp != nil {
		subject, fqdn, self = tp.SubjectName, tp.FQDN, tp.Enrollment == "self"
	}
	if fqdn == "" {
		c := s.x.keeper.Running()
		if fqdn = c.Hostname; c.DomainName != "" {
			fqdn += "." + c.DomainName
		}
	}
	start := "% Start certificate enrollment ..\n"
	if self {
		start = ""
	}
	if _, err := fmt.Fprintf(w, "%s%% The subject name in the certificate will be: %s\n%% The fully-qualified domain name in the certificate will be: %s\n", start, observe.Clean(subject), observe.Clean(fqdn)); err != nil {
		return err
	}
	last := "Display Certificate Request to terminal?"
	if self {
		last = "Generate Self-Signed Certificate?"
	}
	s.yesNo("% Include the device serial number in the subject name?", func(_ context.Context, yes bool, w io.Writer) error {
		var err error
		if yes {
			_, err = io.WriteString(w, "% This appliance has no serial number: it is left out.\n")
		}
		s.yesNo(last, func(_ context.Context, yes bool, w io.Writer) error {
			if self && !yes {
				_, err := io.WriteString(w, "Nothing was entered.\n")
				return err
			}
			if err := s.typed(t, w); err != nil {
				return err
			}
			if !self && yes {
				return s.showRequest(name, w)
			}
			return nil
		})
		return err
	})
	return nil
}

// showRequest shows the certificate request of a trustpoint.
func (s *session) showRequest(name string, w io.Writer) error {
	r, ok := s.x.backend.(Requester)
	if !ok {
		return nil
	}
	text, err := r.CertificateRequest(name)
	if err != nil {
		_, err = fmt.Fprintf(w, "INFO: there is no request yet: %s\n", observe.Clean(err.Error()))
		return err
	}
	_, err = fmt.Fprintf(w, "Certificate Request follows:\n\n%s\n---End - This line not part of the certificate request---\n", text)
	return err
}

// showIdentity shows the certificate that was exported.
func (s *session) showIdentity(name string, w io.Writer) error {
	r, ok := s.x.backend.(Requester)
	if !ok {
		return nil
	}
	text, err := r.IdentityCertificate(name)
	if err != nil {
		_, err = fmt.Fprintf(w, "INFO: there is no certificate yet: %s\n", observe.Clean(err.Error()))
		return err
	}
	_, err = fmt.Fprintf(w, "The PEM encoded identity certificate follows:\n\n%s", text)
	return err
}

// accept asks whether a pasted certificate of an authority is the one that was meant.
func (s *session) accept(body []string, t config.Typed, w io.Writer) error {
	if _, err := io.WriteString(w, fingerprints(body)+"\n"); err != nil {
		return err
	}
	s.yesNo("Do you accept this certificate?", func(_ context.Context, yes bool, w io.Writer) error {
		if !yes {
			_, err := io.WriteString(w, "% The certificate was not accepted: nothing was changed.\n")
			return err
		}
		if err := s.typed(t, w); err != nil {
			return err
		}
		_, err := io.WriteString(w, "Trustpoint CA certificate accepted.\n\n% Certificate successfully imported\n")
		return err
	})
	return nil
}
