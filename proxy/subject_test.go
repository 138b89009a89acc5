package proxy

import (
	"testing"

	"imeproxy/proxy/config"
	"imeproxy/tlsproxy"
)

// FuzzSubjectNames checks that two readers of one thing agree: a subject name that the configuration takes, in the form in which it keeps
// it, is one that a certificate can be made of.
func FuzzSubjectNames(f *testing.F) {
	for _, s := range []string{
		"cn=Ent-local-domain-name**", `cn=Ent-local-domain-name**., o="Example Corp"`, "cn=a.example, o=“Example, Corp”", `CN=a\2C b,ou='x;y'`, "c=us;st=b\\ ",
		"ea=a@b.example, dc=example, uid=1", `o="a\"b", cn=\41`, "cn=a.example,", "street=1 é Street, postalcode=7, t=x, gn=y, sn=z, serialnumber=9", "cn=#3132", "cn=a+ou=b",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		cfg, found := config.Parse("f", []byte("crypto ca trustpoint t\n subject-name "+name))
		if len(found) > 0 || len(cfg.Trustpoints) != 1 || cfg.Trustpoints[0].SubjectName == "" {
			return
		}
		if _, _, err := tlsproxy.ParseSubject(cfg.Trustpoints[0].SubjectName); err != nil {
			t.Errorf("%q is kept as %q, of which no certificate can be made: %v", name, cfg.Trustpoints[0].SubjectName, err)
		}
	})
}
