package main

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"imeproxy/ucime/enroll"
	"imeproxy/ucime/pvp"
)

// A member is what the validator asks who it is and whom it may speak to.
var _ pvp.Identity = (*enroll.Member)(nil)

var volatile = []struct {
	match *regexp.Regexp
	by    string
}{
	{regexp.MustCompile(`[0-9a-f]{30,32}\b`), strings.Repeat("#", 32)}, // tags, peer IDs, serials
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`), "@"},
	{regexp.MustCompile(`\b\d{17}\b`), "%"},
	{regexp.MustCompile(`([0-9A-F]{4} ){16}`), "& "},
}

// same takes out what is another each time.
func same(text string) string {
	for _, v := range volatile {
		text = v.match.ReplaceAllString(text, v.by)
	}
	return text
}

// freePort is one that was free a moment ago.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// docSession runs the examples of docs/enroll.md as they stand.
type docSession struct {
	t      *testing.T
	dir    string
	port   string
	tag    string
	server context.CancelFunc
	ended  chan int
}

// run runs one line of the document and returns what a terminal would show.
func (s *docSession) run(line string) string {
	s.t.Helper()
	line = strings.ReplaceAll(line, "8443", s.port)
	line = strings.ReplaceAll(line, "revoke --dir authority 163d18ab727c0fa14fce75c6651b1362", "revoke --dir authority "+s.tag)
	stdin := ""
	if first, rest, piped := strings.Cut(line, " | "); piped {
		cmd := exec.Command("sh", "-c", first)
		cmd.Dir = s.dir
		out, err := cmd.Output()
		if err != nil {
			s.t.Fatalf("%s: %v", first, err)
		}
		stdin, line = string(out), rest
	}
	line, background := strings.CutSuffix(line, " &")
	line, into, redirected := strings.Cut(line, " > ")
	line = strings.ReplaceAll(line, `"Example ring"`, "Example_ring")
	args := strings.Fields(line)[1:]
	if background {
		ctx, cancel := context.WithCancel(s.t.Context())
		s.server = cancel
		go func() {
			root := newRootCommand()
			root.SetErr(s.t.Output())
			s.ended <- execute(ctx, root, args)
		}()
		s.enroll()
		return ""
	}
	stdout, stderr, _ := imeproxy(stdin, args...)
	if redirected {
		if err := os.WriteFile(into, []byte(stdout), 0o600); err != nil {
			s.t.Fatal(err)
		}
		stdout = ""
	}
	return stdout + stderr
}

// enroll is what the document leaves to a peer server: here it is the example of docs/protocol/enroll.md, with openssl and curl.
func (s *docSession) enroll() {
	s.t.Helper()
	addr := "127.0.0.1:" + s.port
	for end := time.Now().Add(20 * time.Second); ; {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
			break
		}
		if time.Now().After(end) {
			s.t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond)
	}
	text, err := os.ReadFile(filepath.Join(s.dir, "protocol-enroll.md"))
	if err != nil {
		s.t.Fatal(err)
	}
	_, script, _ := strings.Cut(string(text), "```sh\n")
	script, rest, _ := strings.Cut(script, "```\n")
	_, want, _ := strings.Cut(rest, "ends in `")
	want, _, _ = strings.Cut(want, "`")
	cmd := exec.Command("sh", "-ec", "cp authority/authority.pem .\n"+script)
	cmd.Dir, cmd.Env = s.dir, append(os.Environ(), "URL=https://"+addr)
	out, err := cmd.CombinedOutput()
	if err != nil || want == "" || !strings.HasSuffix(strings.TrimSpace(string(out)), want) {
		s.t.Fatalf("the example of docs/protocol/enroll.md: %v\n%s\nwant %q", err, out, want)
	}
}

// The examples of docs/enroll.md say what the commands print, and the one of docs/protocol/enroll.md works.
func TestEnrollDocument(t *testing.T) {
	doc, err := os.ReadFile("../../docs/enroll.md")
	if err != nil {
		t.Fatal(err)
	}
	protocol, err := os.ReadFile("../../docs/protocol/enroll.md")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "protocol-enroll.md"), protocol, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	s := &docSession{t: t, dir: dir, port: freePort(t), ended: make(chan int, 1)}
	_, examples, _ := strings.Cut(string(doc), "\n## Examples\n")
	examples, _, _ = strings.Cut(examples, "\n## ")
	ran := 0
	for i, block := range strings.Split(examples, "```\n") {
		if i%2 == 0 {
			continue
		}
		for _, example := range strings.Split("\n"+block, "\n$ ")[1:] {
			line, want, _ := strings.Cut(example, "\n")
			got := s.run(line)
			if s.tag == "" {
				if _, after, ok := strings.Cut(got, "Tag:        "); ok {
					s.tag = after[:32]
				}
			}
			if g, w := strings.TrimSpace(same(got)), strings.TrimSpace(same(want)); g != w {
				t.Errorf("%s\nprints:\n%s\ndocs/enroll.md says:\n%s", line, g, w)
			}
			ran++
		}
	}
	if ran < 9 || s.server == nil {
		t.Fatalf("%d examples ran", ran)
	}
	s.server()
	if status := <-s.ended; status != 0 {
		t.Errorf("the server ended with status %d", status)
	}
}

func TestLicenseInspectJSON(t *testing.T) {
	dir := t.TempDir()
	if _, stderr, status := imeproxy("", "enroll-server", "init", "--dir", dir+"/a"); status != 0 {
		t.Fatal(stderr)
	}
	text, stderr, status := imeproxy("", "license", "issue", "--dir", dir+"/a", "--peers", "1", "--host-id", "00-16-35-69-B2-E0", "--expires", "2099-12-31")
	if status != 0 {
		t.Fatal(stderr)
	}
	stdout, stderr, status := imeproxy(text, "license", "inspect", "--json", "--authority", dir+"/a/authority.pem", "-")
	if status != 0 || !bytes.Contains([]byte(stdout), []byte(`"peercount":1,"host_id":"00163569b2e0"`)) || !strings.Contains(stdout, `"expires":"2099-12-31T23:59:59Z"`) {
		t.Errorf("status %d: %s%s", status, stdout, stderr)
	}
	for _, c := range []struct{ args, want string }{
		{"enroll-server init --dir " + dir + "/a", "has an authority already"},
		{"enroll-server revoke --dir " + dir + "/a 12", "want 32 hexadecimal digits"},
		{"enroll-server release --dir " + dir + "/a " + strings.Repeat("1", 32), "has no certificate"},
		{"enroll-server list --dir " + dir + "/none", "no such file"},
		{"license issue --dir " + dir + "/a --host-id ANY --peers 65", "peer count 65: want 1 to 64"},
		{"license issue --dir " + dir + "/a --host-id ANY --expires soon", "want a date such as 2027-12-31"},
		{"license inspect --authority " + dir + "/a/journal x", "authority file: want the authority's CERTIFICATE"},
	} {
		if stdout, stderr, status := imeproxy("", strings.Fields(c.args)...); status != 1 || stdout != "" || !strings.Contains(stderr, c.want) {
			t.Errorf("%s: status %d, %s%s", c.args, status, stdout, stderr)
		}
	}
}
