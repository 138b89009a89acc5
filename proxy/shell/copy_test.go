package shell

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestFilesOfDisk0(t *testing.T) {
	b, k := newTraced(t), newKeeper(t)
	s := newExecutor(b, k, time.Now).NewSession(Caller{})
	if err := os.WriteFile(filepath.Join(b.dir, "ssh_host_ed25519_key"), []byte("secret key"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Append("t", []string{"enable password correct-horse"}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		line string
		want []string
	}{
		{"copy running-config disk0:now.cfg", []string{"bytes copied in "}},
		{"dir", []string{"Directory of disk0:/\n", " now.cfg\n", "1 file, "}},
		{"more disk0:/now.cfg", []string{"hostname asa-a\n", "enable password *****"}},
		{"copy disk0:now.cfg disk0:/second.txt", []string{"bytes copied"}},
		{"delete disk0:now.cfg", []string{""}},
		{"more disk0:now.cfg", []string{"there is no disk0:now.cfg"}},
		{"copy disk0:ssh_host_ed25519_key disk0:key.txt", []string{"Invalid input"}},
		{"more disk0:ssh_host_ed25519_key", []string{"Invalid input"}},
		{"copy /etc/passwd disk0:x.txt", []string{"Invalid input"}},
		{"copy running-config running-config", []string{"Invalid input"}},
		{"copy disk0:none.txt disk0:x.txt", []string{"there is no disk0:none.txt"}},
	} {
		var out bytes.Buffer
		if err := s.Run(context.Background(), c.line, &out); err != nil {
			out.WriteString(err.Error())
		}
		has(t, out.String(), c.want...)
	}
	text, err := os.ReadFile(filepath.Join(b.dir, "second.txt"))
	if err != nil || !strings.Contains(string(text), "enable password $2a$") {
		t.Errorf("a stored configuration must be usable: %v\n%s", err, text)
	}
	if done, _ := s.Complete("more disk0:se"); strings.TrimSpace(done) != "more disk0:second.txt" {
		t.Errorf("completed to %q", done)
	}
}

// The lines of a file are typed, all or none; a file that becomes the saved configuration must be without mistakes, and is not in force.
func TestConfigurationsAreCopied(t *testing.T) {
	b, k := newTraced(t), newKeeper(t)
	s := newExecutor(b, k, time.Now).NewSession(Caller{})
	for name, text := range map[string]string{"more.cfg": "banner motd hello\r\nhostname merged\r\n", "bad.cfg": "hostname good\nfrobnicate bad\n", "whole.cfg": startText + "banner exec saved\n"} {
		if err := os.WriteFile(filepath.Join(b.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	do := func(line string) string {
		var out bytes.Buffer
		if err := s.Run(context.Background(), line, &out); err != nil {
			out.WriteString(err.Error())
		}
		return out.String()
	}
	has(t, do("copy disk0:bad.cfg running-config"), "frobnicate")
	has(t, do("copy disk0:bad.cfg startup-config"), "bad.cfg:2:1")
	if k.Running().Hostname != "asa-a" {
		t.Errorf("half of a file was taken: %s", k.Running().Hostname)
	}
	has(t, do("copy disk0:more.cfg running-config"), "bytes copied")
	if c := k.Running(); c.Hostname != "merged" || len(c.Banners) != 1 || len(c.Interfaces) != 2 {
		t.Errorf("running is\n%s", c)
	}
	has(t, do("copy disk0:whole.cfg startup-config"), "bytes copied")
	if c, err := k.Startup(); err != nil || len(c.Banners) != 1 || c.Banners[0].Text != "saved" || k.Running().Hostname != "merged" {
		t.Errorf("saved is\n%s", c)
	}
	has(t, do("copy startup-config disk0:copy.cfg"), "bytes copied")
	has(t, do("more disk0:copy.cfg"), "banner exec saved")
	if h, err := k.History(); err != nil || len(h) != 1 {
		t.Errorf("what was replaced is not kept: %v, %v", h, err)
	}
}

// A person is asked before a file is written over.
func TestWritingOverIsAsked(t *testing.T) {
	b, k := newTraced(t), newKeeper(t)
	s := newExecutor(b, k, time.Now).NewSession(Caller{})
	if err := os.WriteFile(filepath.Join(b.dir, "x.txt"), []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	read := func() string {
		text, _ := os.ReadFile(filepath.Join(b.dir, "x.txt"))
		return string(text)
	}
	has(t, byHand(s, "copy running-config disk0:x.txt", "no"), "%Warning:There is a file already existing with this name: disk0:/x.txt\nDo you want to over write? [confirm] no")
	if read() != "old" {
		t.Error("it was written over")
	}
	byHand(s, "copy running-config disk0:x.txt", forget)
	if read() != "old" {
		t.Error("Ctrl-C has written it over")
	}
	has(t, byHand(s, "copy /noconfirm running-config disk0:x.txt"), "bytes copied")
	if err := os.WriteFile(filepath.Join(b.dir, "x.txt"), []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	has(t, byHand(s, "copy running-config disk0:x.txt", ""), "bytes copied")
	if !strings.HasPrefix(read(), "hostname asa-a") {
		t.Errorf("it is %q", read())
	}
}

func TestRemoteCopyAsksAndHides(t *testing.T) {
	b, k := newTraced(t), newKeeper(t)
	s := newExecutor(b, k, time.Now).NewSession(Caller{})
	has(t, typeAll(s, []string{"copy scp://u@127.0.0.1:1/x.txt disk0:x.txt"}), "nobody can be asked for the password")
	has(t, typeAll(s, []string{"copy scp://u:p@127.0.0.1:1/x.txt scp://u:p@127.0.0.1:1/y.txt"}), "one of the two must be here")
	has(t, typeAll(s, []string{"copy scp://127.0.0.1/x.txt disk0:x.txt"}), "Invalid input")
	screen := byHand(s, "copy scp://u@127.0.0.1:1/x.txt disk0:x.txt")
	has(t, screen, "Password for u@127.0.0.1:1: ")
	if !s.Secret() {
		t.Error("the password would be seen")
	}
	has(t, byHand(s, ""), "nothing was copied")
	if line := auditLine("copy scp://user:very-secret@host/x disk0:x.txt"); strings.Contains(line, "very-secret") || !strings.Contains(line, "user:*****@host") {
		t.Errorf("logged as %q", line)
	}
}

// A person is asked before a file is removed, in the words of an ASA; nobody else is.
func TestDeleteIsAsked(t *testing.T) {
	b := newTraced(t)
	s := newExecutor(b, newKeeper(t), time.Now).NewSession(Caller{})
	there := func(want ...string) {
		t.Helper()
		files, err := b.disk.List()
		var got []string
		for _, f := range files {
			got = append(got, f.Name)
		}
		if err != nil || strings.Join(got, " ") != strings.Join(want, " ") {
			t.Errorf("files are %q, want %q: %v", got, want, err)
		}
	}
	for _, name := range []string{"a.txt", "b.txt", "c.txt", "d.txt"} {
		if err := os.WriteFile(filepath.Join(b.dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	has(t, byHand(s, "delete disk0:/a.txt", "", "n"), "asa-a# delete disk0:/a.txt\nDelete filename [a.txt]? \nDelete disk0:/a.txt? [confirm] n\nasa-a# ")
	byHand(s, "delete disk0:/a.txt", forget)
	byHand(s, "delete disk0:/a.txt", "", forget)
	has(t, byHand(s, "delete disk0:/a.txt", "none.txt"), "there is no disk0:none.txt")
	has(t, byHand(s, "delete disk0:/none.txt"), "there is no disk0:none.txt")
	there("a.txt", "b.txt", "c.txt", "d.txt")
	byHand(s, "delete disk0:a.txt", "", "")
	there("b.txt", "c.txt", "d.txt")
	byHand(s, "delete disk0:b.txt", "disk0:/c.txt", "y")
	there("b.txt", "d.txt")
	byHand(s, "delete /noconfirm disk0:b.txt")
	there("d.txt")
	if err := s.Run(context.Background(), "delete disk0:/d.txt", new(bytes.Buffer)); err != nil || s.Prompt() != "asa-a# " {
		t.Errorf("a script is asked: %q, %v", s.Prompt(), err)
	}
	there()
}

// The saved configuration is erased on Return alone, or without questions where that was asked for; what runs stays, and the history has what was erased.
func TestWriteErase(t *testing.T) {
	for name, c := range map[string]struct {
		lines  []string
		erased bool
	}{"Return": {[]string{"write erase", ""}, true}, "no": {[]string{"write erase", "n"}, false}, "Ctrl-C": {[]string{"write erase", forget}, false}, "noconfirm": {[]string{"write erase noconfirm"}, true}} {
		k := newKeeper(t)
		s := newExecutor(&clearable{}, k, time.Now).NewSession(Caller{})
		screen := byHand(s, c.lines...)
		if len(c.lines) > 1 {
			has(t, screen, "Erase configuration in flash memory? [confirm] ")
		}
		saved, err := k.Startup()
		if err != nil || (saved.String() == "") != c.erased || strings.Contains(screen, "[OK]") != c.erased || k.Running().Hostname != "asa-a" {
			t.Errorf("%s: saved is %q, %v:\n%s", name, saved, err, screen)
		}
		if h, err := k.History(); err != nil || (len(h) == 1) != c.erased {
			t.Errorf("%s: history %v, %v", name, h, err)
		}
	}
	s := newExecutor(&clearable{}, newKeeper(t), time.Now).NewSession(Caller{})
	if err := s.Run(context.Background(), "write erase", new(bytes.Buffer)); err == nil {
		t.Error("a script erases without saying noconfirm")
	}
	has(t, byHand(s, "write terminal"), "hostname asa-a\n")
}
