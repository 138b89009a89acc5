package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// runTicket runs `ticket ARGS...` and gives what a shell would see.
func runTicket(t *testing.T, stdin string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := newTicketCommand()
	var out, errs bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&errs)
	cmd.SetIn(strings.NewReader(stdin))
	cmd.SetArgs(args)
	err := cmd.Execute()
	if err == nil {
		return out.String(), errs.String(), 0
	}
	var status interface{ ExitCode() int }
	if !errors.As(err, &status) {
		t.Fatalf("%v has no exit code", err)
	}
	return out.String(), errs.String(), status.ExitCode()
}

func passwordFile(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "pw")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func issueArgs(pw string, more ...string) []string {
	return append([]string{
		"issue", "--password-file", pw, "--epoch", "7", "--own-domain", "b.example", "--granted-to", "a.example",
		"--number", "+14085551212", "--number", "+18005550000", "--now", "2026-10-26T07:33:20Z",
	}, more...)
}

func verifyArgs(pw string, more ...string) []string {
	return append([]string{
		"verify", "--password-file", pw, "--epoch", "7", "--own-domain", "b.example", "--called", "+14085551212",
		"--peer-domain", "x.example", "--peer-domain", "a.example", "--now", "2026-10-26T08:00:00Z",
	}, more...)
}

func TestTicketVectorsThroughTheCommand(t *testing.T) {
	text, err := os.ReadFile("../../ucime/ticket/testdata/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Vectors []struct {
			Name, Ticket, Expect, Password, Called string
			Epoch                                  int
			Now                                    int64
			OwnDomain                              string   `json:"own_domain"`
			PeerDomains                            []string `json:"peer_domains"`
		}
	}
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, v := range file.Vectors {
		if seen[v.Expect] {
			continue // the package's own test has all; each derives a key here
		}
		seen[v.Expect] = true
		t.Run(v.Name, func(t *testing.T) {
			args := []string{
				"verify", "--password-file", passwordFile(t, v.Password+"\n"), "--epoch", strconv.Itoa(v.Epoch),
				"--own-domain", v.OwnDomain, "--called", v.Called, "--now", time.Unix(v.Now, 0).UTC().Format(time.RFC3339),
			}
			for _, d := range v.PeerDomains {
				args = append(args, "--peer-domain", d)
			}
			wantCode := 1
			if v.Expect == "ok" {
				wantCode = 0
			}
			out, errs, code := runTicket(t, "", append(args, v.Ticket)...)
			if out != `{"result":"`+v.Expect+`"}`+"\n" || errs != "" || code != wantCode {
				t.Errorf("stdout %q, stderr %q, exit %d; want %q", out, errs, code, v.Expect)
			}
		})
	}
}

func TestTicketIssueThenVerify(t *testing.T) {
	pw := passwordFile(t, "a-long-ticket-password-01")
	text, errs, code := runTicket(t, "", issueArgs(pw)...)
	if code != 0 || errs != "" || strings.Count(text, "\n") != 1 {
		t.Fatalf("stdout %q, stderr %q, exit %d", text, errs, code)
	}
	good := strings.TrimSpace(text)
	for name, tc := range map[string]struct {
		args  []string
		stdin string
		want  string
	}{
		"good":                      {verifyArgs(pw, good), "", "ok"},
		"from standard input":       {verifyArgs(pw, "-"), text, "ok"},
		"from standard input, CRLF": {verifyArgs(pw, "-"), good + "\r\n", "ok"},
		"second line on input":      {verifyArgs(pw, "-"), text + "\n", "Ticket decode failed"},
		"password file with LF":     {verifyArgs(passwordFile(t, "a-long-ticket-password-01\n"), good), "", "ok"},
		"password file with CRLF":   {verifyArgs(passwordFile(t, "a-long-ticket-password-01\r\n"), good), "", "ok"},
		"other number of the same":  {verifyArgs(pw, good, "--called", "+1-800-555-0000"), "", "ok"},
		"empty":                     {verifyArgs(pw, ""), "", "Ticket decode failed"},
		"other epoch":               {verifyArgs(pw, good, "--epoch", "8"), "", "Ticket epoch mismatch"},
		"other password":            {verifyArgs(passwordFile(t, "another-password\n"), good), "", "Ticket integrity check failed"},
		"a year later":              {verifyArgs(pw, good, "--now", "2027-10-26T07:38:21Z"), "", "Ticket timestamp invalid"},
		"other number":              {verifyArgs(pw, good, "--called", "+14085551213"), "", "Ticket DID mismatch"},
		"empty number":              {verifyArgs(pw, good, "--called", ""), "", "Ticket DID mismatch"},
		"other own domain":          {verifyArgs(pw, good, "--own-domain", "c.example"), "", "Route domain name check failed"},
		"another's certificate": {[]string{
			"verify", "--password-file", pw, "--epoch", "7", "--own-domain", "b.example", "--called", "+14085551212",
			"--peer-domain", "*.example", "--now", "2026-10-26T08:00:00Z", good,
		}, "", "Ticket domain check failed"},
	} {
		t.Run(name, func(t *testing.T) {
			out, errs, code := runTicket(t, tc.stdin, tc.args...)
			wantCode := 1
			if tc.want == "ok" {
				wantCode = 0
			}
			if want := `{"result":"` + tc.want + `"}` + "\n"; out != want || errs != "" || code != wantCode {
				t.Errorf("stdout %q, stderr %q, exit %d; want %q, exit %d", out, errs, code, want, wantCode)
			}
		})
	}
}

func TestTicketInspect(t *testing.T) {
	text, _, _ := runTicket(t, "", issueArgs(passwordFile(t, "a-long-ticket-password-01"), "--lifetime", "1h", "--node", "514DD001C7553593EBEFEE2B076AD9D4")...)
	good := strings.TrimSpace(text)
	out, errs, code := runTicket(t, "", "inspect", good)
	if code != 0 || errs != "" {
		t.Fatalf("stderr %q, exit %d", errs, code)
	}
	for _, want := range []string{
		"Version:           1\n", "Not after:         2026-10-26T08:33:20Z (1793003600)\n",
		"Number:            +14085551212\nNumber:            +18005550000\n",
		"Granting node:     514dd001c7553593ebefee2b076ad9d4\n", "Epoch:             7\n", "Integrity: ",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	out, _, code = runTicket(t, text, "inspect", "--json", "-")
	var v struct {
		Numbers []string
		Epoch   int
	}
	if err := json.Unmarshal([]byte(out), &v); err != nil || code != 0 || len(v.Numbers) != 2 || v.Epoch != 7 {
		t.Errorf("%v, exit %d, %s", err, code, out)
	}
	out, errs, code = runTicket(t, "", "inspect", good[:16])
	if code != 1 || out != "" || errs != "ticket inspect: ticket decode failed at byte 7: type 0x0002 (ticket id) has length 16, only 3 bytes follow\n" {
		t.Errorf("stdout %q, stderr %q, exit %d", out, errs, code)
	}
	_, errs, code = runTicket(t, "", "inspect", "AAEA!")
	if code != 1 || !strings.Contains(errs, "at character 4") {
		t.Errorf("stderr %q, exit %d", errs, code)
	}
}

func TestTicketUsage(t *testing.T) {
	pw := passwordFile(t, "a-long-ticket-password-01")
	short, two, blank := passwordFile(t, "short\n"), passwordFile(t, "a-long-password\n\n"), passwordFile(t, "a long password\n")
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"nothing":               {[]string{}, "issue, verify or inspect?"},
		"unknown command":       {[]string{"forge"}, `"forge"`},
		"unknown flag":          {[]string{"inspect", "--xml", "AA"}, "--xml"},
		"issue with argument":   {issueArgs(pw, "x"), "1 arguments, want 0"},
		"verify without ticket": {verifyArgs(pw), "0 arguments, want 1"},
		"inspect two":           {[]string{"inspect", "AA", "BB"}, "2 arguments"},
		"no password file":      {issueArgs(pw, "--password-file", ""), "--password-file"},
		"file that is not":      {issueArgs(pw + "x"), "no such file"},
		"short password":        {issueArgs(short), "want 10 to 64"},
		"two line ends":         {issueArgs(two), "position 16"},
		"blank in password":     {verifyArgs(blank, "AA"), "position 2"},
		"epoch 0":               {issueArgs(pw, "--epoch", "0"), "want 1 to 255"},
		"epoch 256":             {issueArgs(pw, "--epoch", "256"), "want 1 to 255"},
		"epoch x":               {issueArgs(pw, "--epoch", "x"), "--epoch"},
		"time":                  {issueArgs(pw, "--now", "yesterday"), "RFC 3339"},
		"lifetime":              {issueArgs(pw, "--lifetime", "0s"), "at least 1s"},
		"node":                  {issueArgs(pw, "--node", "12"), "32 hexadecimal digits"},
		"number":                {issueArgs(pw, "--number", "1234"), `"1234"`},
		"domain":                {issueArgs(pw, "--granted-to", "a_b"), "granted-to domain"},
		"no called": {[]string{
			"verify", "--password-file", pw, "--epoch", "7", "--own-domain", "b", "--peer-domain", "a", "AA",
		}, "--called"},
	} {
		t.Run(name, func(t *testing.T) {
			out, errs, code := runTicket(t, "", tc.args...)
			if code != 2 || out != "" || !strings.Contains(errs, tc.want) {
				t.Errorf("stdout %q, stderr %q, exit %d; want %q, exit 2", out, errs, code, tc.want)
			}
			if strings.Contains(errs, "a-long") || strings.Contains(errs, "short") {
				t.Errorf("stderr holds the password: %q", errs)
			}
		})
	}
}

// The examples of docs/tickets.md say what the commands print.
func TestTicketDocumentation(t *testing.T) {
	doc, err := os.ReadFile("../../docs/tickets.md")
	if err != nil {
		t.Fatal(err)
	}
	const vector = "AAEAAQEAAgAQAAECAwQFBgcICQoLDA0ODwADABAQERITFBUWFxgZGhscHR4fAAQACAAAAABq3wJAAAUACAAAAABswDXAAAYADCsxNDA4NTU1MTIxMgAHABBRTdABx1U1k+vv7isHatnUAAgACWIuZXhhbXBsZQAJAAlhLmV4YW1wbGUACgABBwD/ACCplsr9j2YSD+L/6j9uIJFA3Iqw+MjKGbZelAj5nZhykw=="
	shown, _, _ := runTicket(t, "", "inspect", vector)
	_, broken, _ := runTicket(t, "", "inspect", "AAEAAQIA")
	for _, want := range []string{"```\n" + shown + "```\n", "$ imeproxy ticket inspect AAEAAQIA\nimeproxy " + broken} {
		if !strings.Contains(string(doc), want) {
			t.Errorf("docs/tickets.md has no\n%s", want)
		}
	}
}
