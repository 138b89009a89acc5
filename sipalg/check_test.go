package sipalg

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// judge runs the first message of a stream through framer, Parse and Check.
func judge(stream string) (*Message, *Violation) {
	frame, err := NewFramer(strings.NewReader(stream), Limits{}).Next()
	var v *Violation
	if errors.As(err, &v) {
		return nil, v
	}
	m, v := Parse(frame.Data)
	if v != nil {
		return nil, v
	}
	return m, Check(m)
}

// verdict writes a judgement as the tables do.
func verdict(v *Violation) string {
	if v == nil {
		return "ok"
	}
	return string(v.Cause) + " " + strconv.Itoa(v.Status)
}

// wire makes a message of a case's text: CRLF line ends, \xNN bytes, "@" as the
// length of the body.
func wire(t *testing.T, text string) string {
	t.Helper()
	text = crlf(text)
	var b strings.Builder
	for {
		before, after, ok := strings.Cut(text, `\x`)
		b.WriteString(before)
		if !ok {
			break
		}
		n, err := strconv.ParseUint(after[:2], 16, 8)
		if err != nil {
			t.Fatal(err)
		}
		b.WriteByte(byte(n))
		text = after[2:]
	}
	text = strings.ReplaceAll(b.String(), "\\n\r\n", "\n")
	if head, body, ok := strings.Cut(text, "\r\n\r\n"); ok {
		text = strings.ReplaceAll(head, ": @", ": "+strconv.Itoa(len(body))) + "\r\n\r\n" + body
	}
	return text
}

func TestTorture(t *testing.T) {
	data, err := os.ReadFile("testdata/torture.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range strings.Split(string(data), "\n== ")[1:] {
		title, text, _ := strings.Cut(text, "\n")
		name, want, _ := strings.Cut(title, ": ")
		if !strings.Contains(text, "\n\n") {
			text += "\n\n"
		} else if !strings.HasSuffix(text, "\n") {
			text += "\n"
		}
		t.Run(name, func(t *testing.T) {
			stream := wire(t, text)
			m, v := judge(stream)
			if got := verdict(v); got != want {
				t.Fatalf("%s, want %s\n%q", got, want, stream)
			}
			if v == nil {
				again, v := judge(m.String())
				if v != nil || again.String() != m.String() {
					t.Errorf("the written form is judged differently: %v", v)
				}
				return
			}
			if v.Status != 0 && NewResponse(v.Message, v.Status, v.Phrase).Get("CSeq") == "" {
				t.Errorf("no CSeq for the answer")
			}
		})
	}
}

// The files of sipgo's module directory are RFC 4475's own bytes.
func TestTortureFilesOfSipgo(t *testing.T) {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/emiago/sipgo").Output()
	if err != nil {
		t.Skipf("needs the go command and sipgo's module directory: %v", err)
	}
	files, _ := filepath.Glob(filepath.Join(strings.TrimSpace(string(dir)), "sip", "testdata", "torture", "*", "*.dat"))
	if len(files) == 0 {
		t.Skip("this machine's module cache has no torture files")
	}
	want := map[string]string{
		"badaspec": "bad_to 400", "badbranch": "bad_via 400", "badinv01": "bad_via 400", "badvers": "unsupported_version 505",
		"bigcode": "bad_start_line 0", "clerr": "truncated_message 0", "escruri": "bad_request_uri 400", "insuf": "missing_header 400",
		"inv2543": "no_content_length 400", "ltgtruri": "bad_request_uri 400", "lwsruri": "bad_start_line 400",
		"lwsstart": "bad_start_line 400", "mcl01": "bad_content_length 400", "mismatch01": "cseq_method_mismatch 400",
		"mismatch02": "cseq_method_mismatch 400", "multi01": "duplicate_header 400", "ncl": "bad_content_length 400",
		"quotbal": "bad_to 400", "regbadct": "bad_contact 400", "scalar02": "bad_cseq 400", "scalarlg": "bad_cseq 0",
		"test": "bad_start_line 400", "trws": "bad_start_line 400", "zeromf": "too_many_hops 483",
		// Valid by RFC 4475, refused by the rules of this house.
		"intmeth": "nul_in_head 400", "escnull": "control_character_in_uri 400",
		// The stored file lacks the empty line that ends its head.
		"baddn": "truncated_message 0",
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimSuffix(filepath.Base(file), ".dat")
		expect := want[name]
		if expect == "" {
			expect = "ok"
		}
		if _, v := judge(string(data)); verdict(v) != expect {
			t.Errorf("%s: %s, want %s", name, verdict(v), expect)
		}
		if m, v := Parse(data); v == nil { // as a datagram, without the framer
			Check(m)
		}
	}
}

// Each row changes one thing in a good message.
func TestCheck(t *testing.T) {
	good := map[string]string{
		"INVITE": crlf("INVITE sip:b@example.com SIP/2.0\nVia: SIP/2.0/TCP h;branch=z9hG4bK1\nMax-Forwards: 70\nFrom: <sip:a@h>;tag=1\nTo: <sip:b@h>\nCall-ID: c1\nCSeq: 1 INVITE\nContact: <sip:a@h>\nContent-Length: 0\n\n"),
		"ACK":    crlf("ACK sip:b@example.com SIP/2.0\nVia: SIP/2.0/TCP h;branch=z9hG4bK1\nMax-Forwards: 70\nFrom: <sip:a@h>;tag=1\nTo: <sip:b@h>\nCall-ID: c1\nCSeq: 1 ACK\nContent-Length: 0\n\n"),
		"200":    crlf("SIP/2.0 200 OK\nVia: SIP/2.0/TCP h;branch=z9hG4bK1\nMax-Forwards: 70\nFrom: <sip:a@h>;tag=1\nTo: <sip:b@h>\nCall-ID: c1\nCSeq: 1 INVITE\nContact: <sip:a@h>\nContent-Length: 0\n\n"),
	}
	const body = "Content-Length: 0\r\n\r\n"
	tests := []struct{ base, old, new, want string }{
		{"INVITE", "", "", "ok"},
		{"ACK", "", "", "ok"},
		{"200", "", "", "ok"},
		{"INVITE", "Max-Forwards: 70\r\n", "", "ok"},
		{"INVITE", ";branch=z9hG4bK1", "", "ok"},
		{"INVITE", "z9hG4bK1", "old", "ok"},
		{"INVITE", "INVITE sip", "INVITE\tsip", "bad_start_line 400"},
		{"INVITE", "INVITE sip", "INV@ITE sip", "bad_start_line 400"},
		{"INVITE", " SIP/2.0\r", " HTTP/1.1\r", "bad_start_line 400"},
		{"INVITE", " SIP/2.0\r", " SIP/2.x\r", "bad_start_line 400"},
		{"INVITE", " SIP/2.0\r", "\r", "bad_start_line 400"},
		{"INVITE", " SIP/2.0\r", " sip/2.0\r", "ok"},
		{"INVITE", " SIP/2.0\r", " SIP/3.0\r", "unsupported_version 505"},
		{"200", "200 OK", "099 OK", "bad_start_line 0"},
		{"200", "200 OK", "700 OK", "bad_start_line 0"},
		{"200", "200 OK", "20 OK", "bad_start_line 0"},
		{"200", "200 OK", "200", "bad_start_line 0"},
		{"INVITE", "To: <sip:b@h>\r\n", "To: <sip:b@h>\n", "bare_line_end 400"},
		{"INVITE", "To: <sip:b@h>\r\n", "To: <sip:b@h>\r", "bare_line_end 400"},
		{"INVITE", "To: ", "X: a\rb\r\nTo: ", "bare_line_end 400"},
		{"ACK", "To: <sip:b@h>\r\n", "To: <sip:b@h>\n", "bare_line_end 0"},
		{"200", "To: <sip:b@h>\r\n", "To: <sip:b@h>\n", "bare_line_end 0"},
		{"INVITE", "To: ", "X: a\x00b\r\nTo: ", "nul_in_head 400"},
		{"INVITE", "INVITE sip", "INV\x00ITE sip", "nul_in_head 400"},
		{"INVITE", "To: ", "No colon here\r\nTo: ", "header_without_colon 400"},
		{"INVITE", "To: ", ": x\r\nTo: ", "bad_header_name 400"},
		{"INVITE", "To: ", "A b: x\r\nTo: ", "bad_header_name 400"},
		{"INVITE", "To: ", "A(b: x\r\nTo: ", "bad_header_name 400"},
		{"INVITE", "To: ", "T\xc3\xb6: x\r\nTo: ", "bad_header_name 400"},
		{"INVITE", "To: ", "To \t: ", "ok"},
		{"INVITE", "Via: ", " Via: ", "stray_continuation 400"},
		{"INVITE", "To: ", "X: " + strings.Repeat("y", MaxLine) + "\r\nTo: ", "header_too_long 400"},
		{"INVITE", "To: ", "X: " + strings.Repeat("y", MaxLine-5) + "\r\nTo: ", "ok"},
		{"INVITE", "To: ", "X: y" + strings.Repeat("\r\n yyyyyyyy", 1200) + "\r\nTo: ", "header_too_long 400"},
		{"INVITE", "sip:b@example.com", "sip:" + strings.Repeat("b", MaxLine) + "@example.com", "header_too_long 400"},
		{"INVITE", "To: ", strings.Repeat("Xx: y\r\n", MaxHeaders-8) + "To: ", "ok"},
		{"INVITE", "To: ", strings.Repeat("Xx: y\r\n", MaxHeaders) + "To: ", "too_many_headers 400"},
		{"INVITE", "Via: SIP/2.0/TCP h;branch=z9hG4bK1\r\n", "", "missing_header 400"},
		{"INVITE", "From: <sip:a@h>;tag=1\r\n", "", "missing_header 400"},
		{"INVITE", "To: <sip:b@h>\r\n", "", "missing_header 400"},
		{"INVITE", "Call-ID: c1\r\n", "", "missing_header 400"},
		{"INVITE", "CSeq: 1 INVITE\r\n", "", "missing_header 400"},
		{"200", "To: <sip:b@h>\r\n", "", "missing_header 0"},
		{"ACK", "To: <sip:b@h>\r\n", "", "missing_header 0"},
		{"INVITE", "To: ", "t: <sip:x@h>\r\nTo: ", "duplicate_header 400"},
		{"INVITE", "To: ", "i: x\r\nTo: ", "duplicate_header 400"},
		{"INVITE", "To: ", "Max-Forwards: 7\r\nTo: ", "duplicate_header 400"},
		{"INVITE", "To: ", "Content-Type: a/b\r\nc: a/b\r\nTo: ", "duplicate_header 400"},
		{"INVITE", "b@example.com", "b@exa%00mple.com", "control_character_in_uri 400"},
		{"INVITE", "b@example.com", "b%0d%0a@example.com", "control_character_in_uri 400"},
		{"INVITE", "b@example.com", "b\x01@example.com", "control_character_in_uri 400"},
		{"INVITE", "b@example.com", "b%7F@example.com", "control_character_in_uri 400"},
		{"INVITE", "b@example.com", "b@192.168.10.300", "bad_request_uri 400"},
		{"INVITE", "sip:b@example.com", "b@example.com", "bad_request_uri 400"},
		{"INVITE", "To: <sip:b@h>", "To: <sip:b%0a@h>", "control_character_in_uri 400"},
		{"INVITE", "To: <sip:b@h>", "To: <sip:b@h>;tag=1;tag=2", "bad_to 400"},
		{"INVITE", "To: <sip:b@h>", "To: <sip:b@h> x", "bad_to 400"},
		{"INVITE", "To: <sip:b@h>", "To: ", "bad_to 400"},
		{"INVITE", "To: <sip:b@h>", "To: <sip:b@h>, <sip:c@h>", "bad_to 400"},
		{"INVITE", ";tag=1", "", "no_from_tag 400"},
		{"INVITE", ";tag=1", ";tag", "no_from_tag 400"},
		{"INVITE", ";tag=1", ";tag=", "bad_from 400"},
		{"INVITE", ";tag=1", `;tag="1"`, "bad_from 400"},
		{"INVITE", "From: <sip:a@h>", "From: <sip:a@h", "bad_from 400"},
		{"INVITE", "From: <sip:a@h>", "From: <sip:>", "bad_from 400"},
		{"INVITE", "SIP/2.0/TCP h", "SIP/2.0/TCP", "bad_via 400"},
		{"INVITE", "SIP/2.0/TCP h", "SIP/2.0/TCP h:99999", "bad_via 400"},
		{"INVITE", "SIP/2.0/TCP h", "SIP/3.0/TCP h", "bad_via 400"},
		{"INVITE", "SIP/2.0/TCP h", "SIP/2.0/TCP h x", "bad_via 400"},
		{"INVITE", "SIP/2.0/TCP h", "SIP/2.0/TCP h : 5060", "ok"},
		{"INVITE", "branch=z9hG4bK1", "branch=z9hG4bK1;branch=z9hG4bK2", "bad_via 400"},
		{"INVITE", "branch=z9hG4bK1", "branch=" + strings.Repeat("b", MaxIdentifier), "ok"},
		{"INVITE", "branch=z9hG4bK1", "branch=" + strings.Repeat("b", MaxIdentifier+1), "identifier_too_long 400"},
		{"INVITE", "branch=z9hG4bK1", "branch=z9hG4bK1, SIP/2.0/TCP h;branch=" + strings.Repeat("b", MaxIdentifier+1), "ok"}, // no key of ours
		{"INVITE", "Call-ID: c1", "Call-ID: " + strings.Repeat("c", MaxIdentifier), "ok"},
		{"INVITE", "Call-ID: c1", "Call-ID: " + strings.Repeat("c", MaxIdentifier+1), "identifier_too_long 400"},
		{"200", "Call-ID: c1", "Call-ID: " + strings.Repeat("c", MaxIdentifier+1), "identifier_too_long 0"},
		{"INVITE", "tag=1", "tag=" + strings.Repeat("t", MaxIdentifier), "ok"},
		{"INVITE", "tag=1", "tag=" + strings.Repeat("t", MaxIdentifier+1), "identifier_too_long 400"},
		{"INVITE", "To: <sip:b@h>", "To: <sip:b@h>;tag=" + strings.Repeat("t", MaxIdentifier), "ok"},
		{"INVITE", "To: <sip:b@h>", "To: <sip:b@h>;tag=" + strings.Repeat("t", MaxIdentifier+1), "identifier_too_long 400"},
		{"200", "To: <sip:b@h>", "To: <sip:b@h>;tag=" + strings.Repeat("t", MaxIdentifier+1), "identifier_too_long 0"},
		{"INVITE", "To: ", "Event: " + strings.Repeat("e", MaxEvent) + ";id=" + strings.Repeat("i", MaxEvent) + "\r\nTo: ", "ok"},
		{"INVITE", "To: ", "o: " + strings.Repeat("e", MaxEvent+1) + "\r\nTo: ", "identifier_too_long 400"},
		{"INVITE", "Call-ID: c1", "Call-ID: c 1", "bad_call_id 400"},
		{"INVITE", "Call-ID: c1", "Call-ID: ", "bad_call_id 400"},
		{"INVITE", "Call-ID: c1", "Call-ID: c\x081", "bad_call_id 400"},
		{"INVITE", "CSeq: 1", "CSeq: 2147483647", "ok"},
		{"INVITE", "CSeq: 1", "CSeq: 2147483648", "bad_cseq 400"},
		{"INVITE", "CSeq: 1", "CSeq: -1", "bad_cseq 400"},
		{"INVITE", "CSeq: 1 INVITE", "CSeq: INVITE", "bad_cseq 400"},
		{"INVITE", "CSeq: 1 INVITE", "CSeq: 1 invite", "cseq_method_mismatch 400"},
		{"ACK", "CSeq: 1 ACK", "CSeq: 1 INVITE", "cseq_method_mismatch 0"},
		{"INVITE", "Forwards: 70", "Forwards: 0", "too_many_hops 483"},
		{"INVITE", "Forwards: 70", "Forwards: 256", "bad_max_forwards 400"},
		{"INVITE", "Forwards: 70", "Forwards: x", "bad_max_forwards 400"},
		{"ACK", "Forwards: 70", "Forwards: 0", "too_many_hops 0"},
		{"200", "Forwards: 70", "Forwards: 0", "ok"},
		{"INVITE", "Contact: <sip:a@h>\r\n", "", "no_contact 400"},
		{"200", "Contact: <sip:a@h>\r\n", "", "ok"},
		{"INVITE", "Contact: <sip:a@h>", "Contact: <sip:a@h>,<sip:b@h>", "bad_contact 400"},
		{"INVITE", "Contact: <sip:a@h>", "Contact: <sip:a@h:x>", "bad_contact 400"},
		{"INVITE", "Contact: <sip:a@h>", "Contact: <sip:a@%0a>", "control_character_in_uri 400"},
		{"INVITE", "To: ", "Route: sip:a@h;lr\r\nTo: ", "bad_route 400"},
		{"INVITE", "To: ", "Route: <sip:a@h;lr>,\r\nTo: ", "bad_route 400"},
		{"INVITE", "To: ", "Record-Route: <sip:a@h\r\nTo: ", "bad_route 400"},
		{"INVITE", "To: ", "Path: <sip:a@[::1>\r\nTo: ", "bad_route 400"},
		{"INVITE", "To: ", "Refer-To: <sip:a@h\r\nTo: ", "bad_refer_to 400"},
		{"INVITE", "To: ", "b: <x>\r\nTo: ", "bad_refer_to 400"},
		{"INVITE", "To: ", "r: <urn:uc-ime:pstn-fallback>\r\nTo: ", "ok"},
		{"INVITE", "To: ", "P-Asserted-Identity: foo\r\nTo: ", "bad_identity 400"},
		{"INVITE", "To: ", "Remote-Party-ID: <sip:a@h>;;\r\nTo: ", "bad_identity 400"},
		{"INVITE", body, "Content-Length: 1\r\n\r\nx", "no_content_type 400"},
		{"INVITE", body, "Content-Type: x\r\nContent-Length: 1\r\n\r\nx", "bad_content_type 400"},
		{"INVITE", body, "c: application/sdp\r\nl: 7\r\n\r\nv=0\r\no=", "ok"},
		{"INVITE", body, "c: Application/SDP;x=y\r\nl: 4\r\n\r\nv=0\n", "ok"},
		{"INVITE", body, "c: application/sdp\r\nl: 4\r\n\r\nv=00", "body_mismatch 400"},
		{"INVITE", body, "c: application/sdp\r\nl: 6\r\n\r\n<html>", "body_mismatch 400"},
		{"200", body, "c: application/sdp\r\nl: 6\r\n\r\n<html>", "body_mismatch 0"},
		{"INVITE", body, "c: multipart/mixed\r\nl: 4\r\n\r\n--b1", "bad_content_type 400"},
		{"INVITE", body, "c: multipart/mixed;boundary=b1\r\nl: 4\r\n\r\n--b1", "ok"},
		{"INVITE", body, "c: multipart/mixed;boundary=\"b2\"\r\nl: 4\r\n\r\n--b1", "body_mismatch 400"},
		{"INVITE", body, "c: multipart/mixed;boundary=" + strings.Repeat("b", 71) + "\r\nl: 4\r\n\r\n--bb", "bad_content_type 400"},
		{"INVITE", body, "e: gzip\r\nc: application/sdp\r\nl: 4\r\n\r\nv=0\n", "content_encoding 415"},
		{"INVITE", body, "e: Identity\r\nc: application/sdp\r\nl: 4\r\n\r\nv=0\n", "ok"},
	}
	seen := map[Cause]bool{CauseNotSIP: true, CauseTruncated: true, CauseFrameTooLarge: true, CauseNoContentLength: true, CauseBadContentLength: true} // framer_test.go
	for _, tt := range tests {
		text := strings.Replace(good[tt.base], tt.old, tt.new, 1)
		if tt.old != "" && text == good[tt.base] {
			t.Fatalf("row changes nothing: %q", tt.old)
		}
		m, v := judge(text)
		if got := verdict(v); got != tt.want {
			t.Errorf("%s with %.60q: %s, want %s", tt.base, tt.new, got, tt.want)
		}
		if v == nil {
			continue
		}
		seen[v.Cause] = true
		if v.Close || m != nil && v.Message != m {
			t.Errorf("%.60q: the framing is intact, yet close=%v", tt.new, v.Close)
		}
	}
	for _, c := range Causes() {
		if !seen[c] {
			t.Errorf("no row gives the cause %s", c)
		}
		if strings.ToLower(string(c)) != string(c) || strings.ContainsAny(string(c), " -") {
			t.Errorf("%s is not snake case", c)
		}
	}
}

// A header-level mistake does not end the connection: the next message is read.
func TestStreamGoesOnAfterHeaderMistake(t *testing.T) {
	bad := strings.Replace(options("Content-Length: 0\r\n", ""), "To: ", "No colon\r\nTo: ", 1)
	f := NewFramer(strings.NewReader(bad+options("Content-Length: 0\r\n", "")), Limits{})
	first, err1 := f.Next()
	second, err2 := f.Next()
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	if _, v := Parse(first.Data); v == nil || v.Close || v.Message.CallID() != "c1" {
		t.Errorf("first message: %v", v)
	}
	if m, v := Parse(second.Data); v != nil || Check(m) != nil {
		t.Errorf("second message: %v", v)
	}
}

func TestParseOutsideTheFramer(t *testing.T) {
	for text, want := range map[string]string{
		options("", ""):            "no_content_length 400",
		options("l: 5\r\n", "abc"): "bad_content_length 400",
		options("l: 2\r\n", "abc"): "bad_content_length 400",
		options("l: x\r\n", "abc"): "bad_content_length 400",
		optionsText:                "truncated_message 400",
		"":                         "truncated_message 0",
		strings.ReplaceAll(options("l: 0\r\n", ""), "\r\n", "\n"): "bare_line_end 400",
	} {
		if _, v := Parse([]byte(text)); verdict(v) != want || !v.Close && v.Cause != CauseLineEnd {
			t.Errorf("%.80q: %s, want %s", text, verdict(v), want)
		}
	}
}
