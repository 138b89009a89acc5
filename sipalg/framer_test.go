package sipalg

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// crlf turns the line ends of a raw string into CRLF.
func crlf(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }

const optionsText = "OPTIONS sip:b@example.com SIP/2.0\r\n" +
	"Via: SIP/2.0/TCP 192.0.2.1;branch=z9hG4bK1\r\n" +
	"Max-Forwards: 70\r\n" +
	"From: <sip:a@example.com>;tag=1\r\n" +
	"To: <sip:b@example.com>\r\n" +
	"Call-ID: c1\r\n" +
	"CSeq: 1 OPTIONS\r\n"

func options(extra string, body string) string { return optionsText + extra + "\r\n" + body }

// drain reads all frames; pongs are left out since they depend on segmentation.
func drain(r io.Reader, l Limits) (out []string, err error) {
	f := NewFramer(r, l)
	for {
		fr, err := f.Next()
		if err != nil {
			return out, err
		}
		switch fr.Kind {
		case KindMessage:
			out = append(out, string(fr.Data))
			m, v := fr.Parse()
			if again, w := Parse(fr.Data); (v == nil) != (w == nil) || v == nil && again.String() != m.String() || v != nil && v.Cause != w.Cause {
				return out, fmt.Errorf("the frame is %v, %v, its bytes are %v, %v", m, v, again, w)
			}
		case KindPing:
			out = append(out, "ping")
		}
	}
}

func TestFramerStream(t *testing.T) {
	plain := options("Content-Length: 0\r\n", "")
	body := options("Content-Type: text/plain\r\nl :\r\n  5\r\n", "he\r\n\r")
	tests := []struct {
		name, in  string
		want      []string
		cause     Cause // "" = io.EOF
		status    int
		wantClose bool
	}{
		{"nothing", "", nil, "", 0, false},
		{"one", plain, []string{plain}, "", 0, false},
		{"pipelined", plain + body + plain, []string{plain, body, plain}, "", 0, false},
		{"leading CRLF", "\r\n" + plain + "\r\n" + plain, []string{plain, plain}, "", 0, false},
		{"ping", "\r\n\r\n" + plain + "\r\n\r\n", []string{"ping", plain, "ping"}, "", 0, false},
		{"same length twice frames", options("Content-Length: 1\r\nl: 01\r\n", "x"), []string{options("Content-Length: 1\r\nl: 01\r\n", "x")}, "", 0, false},
		{"bare LF inside a head frames", strings.Replace(plain, "\r\nTo", "\nTo", 1), []string{strings.Replace(plain, "\r\nTo", "\nTo", 1)}, "", 0, false},
		{"no length", options("", "") + plain, nil, CauseNoContentLength, 400, true},
		{"negative length", options("Content-Length: -999\r\n", "x"), nil, CauseBadContentLength, 400, true},
		{"garbage length", options("Content-Length: 5x\r\n", "x"), nil, CauseBadContentLength, 400, true},
		{"empty length", options("Content-Length:\r\n", "x"), nil, CauseBadContentLength, 400, true},
		{"two lengths", options("Content-Length: 13\r\nContent-Length: 5\r\n", "x"), nil, CauseBadContentLength, 400, true},
		{"huge length", options("Content-Length: 99999999999999999999999\r\n", "x"), nil, CauseFrameTooLarge, 513, true},
		{"length over the limit", options("Content-Length: 65536\r\n", "x"), nil, CauseFrameTooLarge, 513, true},
		{"endless head", optionsText + strings.Repeat("X: y\r\n", 12000), nil, CauseFrameTooLarge, 513, true},
		{"endless line", optionsText + "X: " + strings.Repeat("y", 70000), nil, CauseFrameTooLarge, 513, true},
		{"LF only", strings.ReplaceAll(plain, "\r\n", "\n"), nil, CauseLineEnd, 400, true},
		{"CR only", strings.ReplaceAll(plain, "\r\n", "\r"), nil, CauseLineEnd, 400, true},
		{"half a head", plain[:60], nil, CauseTruncated, 0, true},
		{"half a body", options("Content-Length: 9999\r\n", "v=0\r\n"), nil, CauseTruncated, 0, true},
		{"TLS record", "\x16\x03\x01\x02\x00", nil, CauseNotSIP, 0, true},
		{"HTTP", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", nil, CauseNotSIP, 0, true},
		{"response without length", "SIP/2.0 200 OK\r\nVia: SIP/2.0/TCP a\r\n\r\n", nil, CauseNoContentLength, 0, true},
		{"lone LF", "\nfoo", nil, CauseNotSIP, 0, true},
	}
	for _, tt := range tests {
		for mode, r := range map[string]io.Reader{
			"whole": strings.NewReader(tt.in), "bytes": iotest.OneByteReader(strings.NewReader(tt.in)),
			"halves": iotest.HalfReader(strings.NewReader(tt.in)), "data with EOF": iotest.DataErrReader(strings.NewReader(tt.in)),
		} {
			t.Run(tt.name+"/"+mode, func(t *testing.T) {
				got, err := drain(r, Limits{})
				if strings.Join(got, "|") != strings.Join(tt.want, "|") {
					t.Errorf("frames %q, want %q", got, tt.want)
				}
				if tt.cause == "" {
					if err != io.EOF {
						t.Fatalf("error %v, want EOF", err)
					}
					return
				}
				var v *Violation
				if !errors.As(err, &v) {
					t.Fatalf("error %v, want a violation", err)
				}
				if v.Cause != tt.cause || v.Status != tt.status || v.Close != tt.wantClose {
					t.Errorf("got %s %d close=%v, want %s %d close=%v", v.Cause, v.Status, v.Close, tt.cause, tt.status, tt.wantClose)
				}
				if v.Status != 0 && v.Message.CallID() != "c1" {
					t.Errorf("the answer cannot be built: Call-ID %q", v.Message.CallID())
				}
			})
		}
	}
}

func TestFramerTruncatedIsUnexpectedEOF(t *testing.T) {
	_, err := drain(strings.NewReader("OPTIONS sip:a"), Limits{})
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("error %v, want io.ErrUnexpectedEOF", err)
	}
}

func TestFramerLimitIsExact(t *testing.T) {
	head := options("Content-Type: text/plain\r\nContent-Length: 100\r\n", "")
	msg := head + strings.Repeat("x", 100)
	if got, err := drain(strings.NewReader(msg), Limits{Frame: len(msg)}); err != io.EOF || len(got) != 1 {
		t.Errorf("frame of exactly the limit: %d frames, %v", len(got), err)
	}
	if got, _ := drain(strings.NewReader(msg), Limits{Frame: len(msg) - 1}); len(got) != 0 {
		t.Errorf("frame one byte over the limit was delivered")
	}
}

// endless gives the same bytes for ever and counts them.
type endless struct {
	line string
	n    int
}

func (e *endless) Read(p []byte) (int, error) {
	n := copy(p, e.line)
	e.n += n
	return n, nil
}

func TestFramerNeverHoldsMoreThanTheLimit(t *testing.T) {
	src := &endless{line: "X-Filler: 0123456789\r\n"}
	f := NewFramer(src, Limits{})
	_, err := f.Next()
	var v *Violation
	if !errors.As(err, &v) || v.Cause != CauseFrameTooLarge {
		t.Fatalf("error %v", err)
	}
	if src.n > MaxFrame+2*readSize {
		t.Errorf("read %d bytes before giving up", src.n)
	}
	if _, again := f.Next(); again != err {
		t.Errorf("after the end: %v, want the same violation", again)
	}
}

func TestFramerPongAndStart(t *testing.T) {
	pr, pw := io.Pipe()
	defer pr.Close()
	msg := options("Content-Length: 0\r\n", "")
	go func() {
		io.WriteString(pw, "\r\n")
		io.WriteString(pw, msg)
		io.WriteString(pw, msg[:1])
		io.WriteString(pw, msg[1:9])
		io.WriteString(pw, msg[9:])
		pw.Close()
	}()
	f := NewFramer(pr, Limits{})
	starts := 0
	f.OnStart = func() { starts++ }
	if fr, err := f.Next(); err != nil || fr.Kind != KindPong {
		t.Fatalf("first frame %v, %v: want a pong at once", fr, err)
	}
	if starts != 0 {
		t.Errorf("a keep-alive started a message")
	}
	if fr, err := f.Next(); err != nil || fr.Kind != KindMessage || starts != 0 {
		t.Errorf("second frame %v, %v, %d starts: it came whole", fr.Kind, err, starts)
	}
	if fr, err := f.Next(); err != nil || string(fr.Data) != msg || starts != 1 {
		t.Errorf("third frame %q, %v, %d starts: it came in parts", fr.Data, err, starts)
	}
}

func TestFramerGoesOnAfterReaderError(t *testing.T) {
	msg := options("Content-Length: 0\r\n", "")
	r := iotest.TimeoutReader(iotest.OneByteReader(strings.NewReader(msg)))
	f := NewFramer(r, Limits{})
	if _, err := f.Next(); !errors.Is(err, iotest.ErrTimeout) {
		t.Fatalf("error %v, want the reader's time-out", err)
	}
	if fr, err := f.Next(); err != nil || string(fr.Data) != msg {
		t.Errorf("after a time-out: %q, %v", fr.Data, err)
	}
}

func FuzzFramer(f *testing.F) {
	for _, s := range []string{options("Content-Length: 0\r\n", ""), "\r\n\r\n\r\n", "\r\r\n", options("l:\r\n 3\r\n", "abc") + "\r\n", "A\n\n", "A\r\rB"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		whole, err1 := drain(bytes.NewReader(in), Limits{Frame: 2000})
		single, err2 := drain(iotest.OneByteReader(bytes.NewReader(in)), Limits{Frame: 2000})
		if strings.Join(whole, "|") != strings.Join(single, "|") {
			t.Fatalf("segmentation changes frames: %q and %q", whole, single)
		}
		var v1, v2 *Violation
		if errors.As(err1, &v1) != errors.As(err2, &v2) || v1 != nil && (v1.Cause != v2.Cause || v1.Status != v2.Status) {
			t.Fatalf("segmentation changes the verdict: %v and %v", err1, err2)
		}
		for _, s := range whole {
			if m, v := Parse([]byte(s)); v == nil {
				Check(m)
			}
		}
	})
}
