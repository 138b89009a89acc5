package sshd

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	gossh "golang.org/x/crypto/ssh"

	"imeproxy/proxy/config"
	"imeproxy/proxy/disk"
)

// keyFile makes a key that a user may log in with.
func keyFile(t *testing.T) (file, authorized string) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := gossh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	known, err := gossh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return file, strings.TrimSpace(string(gossh.MarshalAuthorizedKey(known)))
}

// OpenSSH's sftp and scp, in the new and the old protocol, fetch, store, list and remove files of disk0:, and reach nothing else.
func TestFilesByOpenSSH(t *testing.T) {
	for _, tool := range []string{"sftp", "scp"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip("this machine has no OpenSSH client")
		}
	}
	key, authorized := keyFile(t)
	c := allow(t, "127.0.0.0/8", freePort(t), authorized)
	s, log := start(t, c)
	work := t.TempDir()
	run := func(stdin, tool string, args ...string) (string, int) {
		cmd := exec.Command(tool, append([]string{
			"-F", "none", "-P", strconv.Itoa(int(c.SSH.Port)), "-i", key, "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=no",
			"-o", "UserKnownHostsFile=" + filepath.Join(work, "known"),
		}, args...)...)
		cmd.Dir, cmd.Stdin = work, strings.NewReader(stdin)
		out, err := cmd.CombinedOutput()
		if err != nil && cmd.ProcessState == nil {
			t.Fatal(err)
		}
		return string(out), cmd.ProcessState.ExitCode()
	}
	big := bytes.Repeat([]byte("0123456789abcdef"), 50_000)
	if err := os.WriteFile(filepath.Join(work, "big.cfg"), big, 0o644); err != nil {
		t.Fatal(err)
	}
	held := func(name string) []byte {
		b, _ := os.ReadFile(filepath.Join(s.dir, name))
		return b
	}
	for _, o := range [][]string{nil, {"-O"}} {
		mode := strings.Join(o, "")
		if out, code := run("", "scp", append(o, "-p", "big.cfg", "admin@127.0.0.1:disk0:/up"+mode+".cfg")...); code != 0 || !bytes.Equal(held("up"+mode+".cfg"), big) {
			t.Errorf("scp %s to disk0: exit %d: %s, %d bytes", mode, code, out, len(held("up"+mode+".cfg")))
		}
		if out, code := run("", "scp", append(o, "admin@127.0.0.1:disk0:/up"+mode+".cfg", "back.cfg")...); code != 0 {
			t.Errorf("scp %s from disk0: exit %d: %s\n%s", mode, code, out, log.String())
		} else if got, _ := os.ReadFile(filepath.Join(work, "back.cfg")); !bytes.Equal(got, big) {
			t.Errorf("scp %s: %d bytes came back", mode, len(got))
		}
		for _, name := range []string{"ssh_host_ed25519_key", "/etc/passwd", "../x.cfg", "disk0:/none.cfg"} {
			if out, code := run("", "scp", append(o, "admin@127.0.0.1:"+name, "stolen")...); code == 0 {
				t.Errorf("scp %s fetched %s: %s", mode, name, out)
			}
			if out, code := run("", "scp", append(o, "big.cfg", "admin@127.0.0.1:/"+name+".pem")...); code == 0 {
				t.Errorf("scp %s stored %s: %s", mode, name, out)
			}
		}
	}
	out, code := run("ls -l\nput big.cfg second.txt\nget second.txt\nrm second.txt\nls\n-mkdir folder\n-rename up.cfg down.cfg\n-symlink up.cfg link.cfg\n-chmod 777 up.cfg\n", "sftp", "-b", "-", "admin@127.0.0.1")
	if code != 0 || !strings.Contains(out, "up.cfg") || held("second.txt") != nil || held("down.cfg") != nil {
		t.Errorf("sftp: exit %d: %s", code, out)
	}
	if _, err := os.Lstat(filepath.Join(s.dir, "link.cfg")); err == nil {
		t.Error("a link was made")
	}
	if info, err := os.Stat(filepath.Join(s.dir, "up.cfg")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the mode was changed: %v, %v", info, err)
	}
	if strings.Contains(out, "ssh_host") {
		t.Errorf("a key is listed: %s", out)
	}
	for _, want := range []string{"action=store file=up.cfg", "action=fetch", "action=remove file=second.txt", "user=admin", `msg="file refused"`} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("no %q in the log:\n%s", want, log.String())
		}
	}
}

// Whoever may only look, and whoever would have to give the enable password first, gets no file.
func TestFilesNeedPrivilege(t *testing.T) {
	c := allow(t, "127.0.0.0/8", freePort(t))
	s, log := start(t, c)
	try := func(user string) bool {
		t.Helper()
		client, err := dial(c, user, secret)
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		for _, line := range []string{"scp -f disk0:/x.cfg", "scp -t disk0:/x.cfg"} {
			x, err := client.NewSession()
			if err != nil {
				t.Fatal(err)
			}
			x.Stdin = strings.NewReader("C0600 1 x.cfg\nx\x00")
			out, _ := x.CombinedOutput(line)
			if !strings.Contains(string(out), "permission denied") {
				return true
			}
		}
		return false
	}
	if try("viewer") {
		t.Error("a user who may only look was served")
	}
	if !try("admin") {
		t.Error("a user who may do everything was not served")
	}
	// Hold on to the same port: the settings of a new connection count.
	next := *c
	next.EnablePassword = config.Secret("$2a$10$abcdefghijklmnopqrstuv")
	if err := s.Apply("", &next, func() error { return nil }); err != nil {
		t.Fatal(err)
	}
	if try("admin") {
		t.Error("files are served without the enable password")
	}
	if !strings.Contains(log.String(), "files refused") {
		t.Errorf("the log: %s", log.String())
	}
	if _, err := os.Stat(filepath.Join(s.dir, "x.cfg")); err == nil {
		if text, _ := os.ReadFile(filepath.Join(s.dir, "x.cfg")); string(text) != "x" {
			t.Errorf("stored %q", text)
		}
	}
}

func TestSCPCommand(t *testing.T) {
	for line, want := range map[string]string{
		"scp -f x.cfg": "source x.cfg", "scp -v -p -t disk0:": "sink disk0:", "scp -f -- x": "source x",
		"scp -r -f x": "", "scp -f": "", "scp x": "", "scp -t -f x": "", "scp -f a b": "", "show version": "", "": "",
	} {
		sink, name, ok := scpCommand(strings.Fields(line))
		got := ""
		if ok {
			got = map[bool]string{true: "sink ", false: "source "}[sink] + name
		}
		if got != want {
			t.Errorf("%q is %q", line, got)
		}
	}
}

// What a client of the old protocol may send gets an answer and leaves nothing.
func FuzzSCPSink(f *testing.F) {
	f.Add("C0600 3 a.cfg\nabc\x00")
	f.Add("T1 0 1 0\nC0600 -1 a.cfg\n")
	f.Add("D0755 0 x\nE\n")
	f.Fuzz(func(t *testing.T, in string) {
		sinkOnce(t, in)
	})
}

func sinkOnce(t *testing.T, in string) {
	t.Helper()
	d, err := disk.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	var out bytes.Buffer
	x := &scp{files: &files{d, slog.New(slog.DiscardHandler)}, r: bufio.NewReaderSize(strings.NewReader(in), maxSCPLine), w: &out}
	_ = x.sink("disk0:")
	all, err := d.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		if f.Size > int64(len(in)) {
			t.Errorf("%d bytes of %d are stored", f.Size, len(in))
		}
	}
}

func TestSinkIsExact(t *testing.T) {
	d, err := disk.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for in, want := range map[string]int{
		"C0600 3 a.cfg\nabc\x00":        1,
		"C0600 4 b.cfg\nabc\x00":        0, // cut off
		"C0600 3 c.cfg\nabc\x01no\n":    0, // the client gives up
		"C0600 3 d.pem\nabc\x00":        0,
		"C0600 999999999999 e.cfg\nabc": 0,
		"D0755 0 folder\n":              0,
	} {
		before, _ := d.List()
		var out bytes.Buffer
		x := &scp{files: &files{d, slog.New(slog.DiscardHandler)}, r: bufio.NewReaderSize(strings.NewReader(in), maxSCPLine), w: &out}
		err := x.sink("disk0:")
		after, _ := d.List()
		if len(after)-len(before) != want || (err == nil) != (want == 1) || (want == 0) != strings.Contains(out.String(), "\x02scp: ") {
			t.Errorf("%q: %d files more, %v, answered %q", in, len(after)-len(before), err, out.String())
		}
	}
}
