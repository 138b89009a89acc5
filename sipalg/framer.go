package sipalg

import (
	"errors"
	"io"
	"strings"
)

// FrameKind tells messages from keep-alives.
type FrameKind int

const (
	// KindMessage is a whole message; Frame.Data holds it.
	KindMessage FrameKind = iota
	// KindPing is CRLFCRLF between messages; the answer is CRLF (RFC 5626 4.4.1).
	KindPing
	// KindPong is one CRLF between messages: the answer to a ping, or what some
	// senders put after a message.
	KindPong
)

// Frame is one unit of a stream.
type Frame struct {
	Kind FrameKind
	// Data is a whole message in memory of the receiver's own; nil for
	// keep-alives.
	Data []byte

	head int // bytes of the head of a message
}

// Parse is [Parse] for a message, whose head the Framer has found.
func (f Frame) Parse() (*Message, *Violation) { return parse(f.Data, f.head, true) }

// Limits bounds what a Framer accepts.
type Limits struct {
	// Frame is the size in bytes of head and body together; 0 means MaxFrame.
	Frame int
}

// Framer cuts a TCP or TLS stream into messages. It holds at most the frame limit
// and one read, of 16 KiB at most. How the stream is cut into reads makes no difference to
// messages, pings and errors; a ping whose two CRLF come in two reads is reported
// as a pong first, since a pong cannot wait for what may never follow it.
//
// A Framer belongs to one goroutine. Deadlines are the reader's: an error of the
// reader leaves the Framer as it was, and Next may be called again.
type Framer struct {
	// OnStart, if set, is called when the first byte of a message is there and
	// its end is not, so that the caller can set the deadline for that.
	OnStart func()

	r       io.Reader
	limit   int
	buf     []byte // unread bytes
	room    []byte // from its beginning, all of the memory that buf lies in
	started bool
	waiting bool // for the rest of a message that has started
	filled  bool // the last read gave all that it could: more is likely there
	half    bool // a single CRLF was reported as a pong
	head    int  // length of the head once it is known, else 0
	total   int  // length of the frame once it is known
	scanner headScanner
	failed  error
}

// NewFramer makes a Framer over r.
func NewFramer(r io.Reader, l Limits) *Framer {
	if l.Frame <= 0 {
		l.Frame = MaxFrame
	}
	return &Framer{r: r, limit: l.Frame}
}

// readSize is what is asked of the reader when the length of the frame is not
// known.
const readSize = 4096

// busyReadSize is what is asked of it when the last read gave all that was asked.
const busyReadSize = 16 << 10

// minRead is the least room worth a read; with less the buffer grows first.
const minRead = 512

// Next returns the next frame. Errors are a *Violation, after which the stream
// cannot be read on and every call returns the same, or the reader's own; io.EOF
// comes between messages only.
func (f *Framer) Next() (Frame, error) {
	if f.failed != nil {
		return Frame{}, f.failed
	}
	for {
		frame, done, v := f.take()
		if v != nil {
			v.Close = true
			f.failed = v
			f.buf, f.room = nil, nil
			return Frame{}, v
		}
		if done {
			return frame, nil
		}
		if f.started && !f.waiting {
			f.waiting = true
			if f.OnStart != nil {
				f.OnStart()
			}
		}
		if err := f.fill(); err != nil {
			return Frame{}, err
		}
	}
}

// Buffered returns the number of bytes that are read and not yet delivered.
func (f *Framer) Buffered() int { return len(f.buf) }

// fill reads once.
func (f *Framer) fill() error {
	want := readSize
	if f.filled {
		want = busyReadSize
	}
	if f.total > len(f.buf) {
		want = f.total - len(f.buf)
	}
	switch free := cap(f.buf) - len(f.buf); {
	case free >= min(want, minRead):
	case cap(f.room)-len(f.buf) >= min(want, minRead):
		f.buf = append(f.room, f.buf...) // what came before it is delivered
	default:
		// Doubling keeps single bytes from costing a copy of the whole each.
		grown := make([]byte, len(f.buf), len(f.buf)+max(want, min(len(f.buf), f.limit)))
		copy(grown, f.buf)
		f.buf, f.room = grown, grown[:0]
	}
	want = min(want, cap(f.buf)-len(f.buf))
	n, err := f.r.Read(f.buf[len(f.buf) : len(f.buf)+want])
	f.buf = f.buf[:len(f.buf)+n]
	f.filled = n == want
	if n > 0 {
		// The error comes again with the next read.
		return nil
	}
	if errors.Is(err, io.EOF) && len(f.buf) > 0 {
		v := f.refuse(CauseTruncated, 400, "Truncated Message")
		// The sender has closed, or is gone: nobody waits for the answer.
		v.Status, v.Phrase, v.Close, v.Err = 0, "", true, io.ErrUnexpectedEOF
		f.failed, f.buf, f.room = v, nil, nil
		return v
	}
	if err == nil {
		return io.ErrNoProgress
	}
	return err
}

// take delivers what the buffer holds.
func (f *Framer) take() (Frame, bool, *Violation) {
	if !f.started {
		if frame, ok := f.keepAlive(); ok {
			return frame, true, nil
		}
		if len(f.buf) == 0 || f.buf[0] == '\r' && len(f.buf) == 1 {
			return Frame{}, false, nil
		}
		f.started, f.half = true, false
		if c := f.buf[0]; c < 0x20 && c != '\r' && c != '\n' && c != '\t' || c >= 0x7f {
			return Frame{}, false, &Violation{Cause: CauseNotSIP, Message: &Message{}}
		}
	}
	if f.total == 0 {
		if done, v := f.measure(); !done || v != nil {
			return Frame{}, false, v
		}
	}
	if len(f.buf) < f.total {
		return Frame{}, false, nil
	}
	frame := Frame{Kind: KindMessage, Data: append(make([]byte, 0, f.total), f.buf[:f.total]...), head: f.head}
	f.drop(f.total)
	f.started, f.waiting, f.head, f.total, f.scanner = false, false, 0, 0, headScanner{}
	return frame, true, nil
}

// keepAlive takes CRLF pairs from between messages.
func (f *Framer) keepAlive() (Frame, bool) {
	if len(f.buf) < 2 || f.buf[0] != '\r' || f.buf[1] != '\n' {
		return Frame{}, false
	}
	if f.half {
		f.half = false
		f.drop(2)
		return Frame{Kind: KindPing}, true
	}
	if len(f.buf) >= 4 && f.buf[2] == '\r' && f.buf[3] == '\n' {
		f.drop(4)
		return Frame{Kind: KindPing}, true
	}
	f.half = true
	f.drop(2)
	return Frame{Kind: KindPong}, true
}

// drop forgets n bytes and moves the rest down where that is cheap, so that the
// buffer does not creep through memory.
func (f *Framer) drop(n int) {
	rest := f.buf[n:]
	if len(rest) == 0 {
		if cap(f.room) > 4*readSize {
			f.room = nil // one large message must not hold its memory for ever
		}
		f.buf = f.room
		return
	}
	f.buf = rest
}

// measure finds the end of the head and the length of the frame.
func (f *Framer) measure() (bool, *Violation) {
	end, strict, ok := f.scanner.scan(f.buf)
	if !ok && len(f.buf) <= f.limit {
		return false, nil
	}
	if !ok || end > f.limit {
		return false, f.refuse(CauseFrameTooLarge, 513, "Message Too Large")
	}
	f.head = end
	if !strict {
		// Where the body begins is anybody's guess.
		return false, f.refuse(CauseLineEnd, 400, "Bare CR Or LF In Head")
	}
	n, cause := contentLength(f.buf[:end])
	switch {
	case cause == CauseNoContentLength:
		return false, f.refuse(cause, 400, "Content-Length Missing")
	case cause != "":
		return false, f.refuse(cause, 400, "Bad Content-Length")
	case n > f.limit-end:
		return false, f.refuse(CauseFrameTooLarge, 513, "Message Too Large")
	}
	f.total = end + n
	return true, nil
}

// refuse reads what the buffer holds of the head for the sake of the answer.
func (f *Framer) refuse(cause Cause, status int, phrase string) *Violation {
	head := f.buf[:min(len(f.buf), f.limit)]
	if f.head > 0 {
		head = f.buf[:f.head]
	} else {
		// A line of which the end is missing would give a wrong header.
		head = head[:min(f.scanner.line, len(head))]
	}
	m, _ := parseHead(string(head))
	if !m.Has("Via") && !m.Has("Call-ID") && !m.Has("CSeq") && cause != CauseTruncated && cause != CauseFrameTooLarge {
		cause = CauseNotSIP
	}
	return refuse(m, cause, status, phrase)
}

// maxDigits bounds a Content-Length; more is no length but an attack on int.
const maxDigits = 10

// contentLength reads the Content-Length of a head; cause says what is wrong with
// it. The same value twice gives the length (Check refuses the message later);
// different ones leave the end of the frame unknown (RFC 4475 3.3.9).
func contentLength(head []byte) (n int, cause Cause) {
	n = -1
	text := textOf(head) // nothing of it is kept
	for text != "" {
		i := strings.IndexByte(text, '\n')
		if i < 0 {
			break
		}
		line := strings.TrimSuffix(text[:i], "\r")
		text = text[i+1:]
		if line == "" || line[0]|0x20 != 'c' && line[0]|0x20 != 'l' {
			continue
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok || !sameName(trim(name), "Content-Length") {
			continue
		}
		for text != "" && isBlank(text[0]) { // folded
			next, rest, _ := strings.Cut(text, "\n")
			value, text = trim(value)+" "+strings.TrimSuffix(next, "\r"), rest
			if len(value) > MaxLine {
				return 0, CauseBadContentLength
			}
		}
		value = trim(value)
		v, ok := number(value, 1<<31-1)
		if !ok && len(value) > maxDigits && isDigits(value) || ok && v > 1<<30 {
			v, ok = 1<<30, true // far beyond any limit: too large, not garbage
		}
		if !ok || n >= 0 && n != int(v) {
			return 0, CauseBadContentLength
		}
		n = int(v)
	}
	if n < 0 {
		return 0, CauseNoContentLength
	}
	return n, ""
}
