package shell

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Sizes of the control protocol in bytes.
const (
	MaxRequest  = 64 << 10  // one request frame
	MaxAnswer   = 256 << 10 // one answer frame
	outputChunk = 32 << 10  // output text of one frame; JSON escapes make it up to six times as long
)

// request is what a client sends.
type request struct {
	Command  string `json:"command"`
	Complete bool   `json:"complete,omitempty"` // the line is being typed: extend it, carry nothing out
	// Asks says that a person has typed the line, who can be asked about it.
	Asks bool `json:"asks,omitempty"`
	// Interrupt ends the command that was sent before, if it still runs; it has no answer of its own.
	Interrupt bool `json:"interrupt,omitempty"`
	// Login begins a new session in the name of a user, for a person at the console. It stands for a command.
	Login *login `json:"login,omitempty"`
}

// login is who a person at the console says to be. Nothing prints it.
type login struct {
	Name     string `json:"name"`
	Password string `json:"password"`
}

// answer is one frame of the server: the greeting, a piece of output or the end of a command.
type answer struct {
	Output string `json:"output,omitempty"`
	Done   bool   `json:"done,omitempty"`
	Exit   int    `json:"exit,omitempty"`
	Error  string `json:"error,omitempty"`
	Prompt string `json:"prompt,omitempty"`
	Close  bool   `json:"close,omitempty"`
	Line   string `json:"line,omitempty"`   // the extended line
	Secret bool   `json:"secret,omitempty"` // the next line is a password, which must not be seen
	Users  bool   `json:"users,omitempty"`  // in the greeting: there are users, and a person at the console must be one of them
	Hidden bool   `json:"hidden,omitempty"` // the prompt is empty on purpose: lines of a certificate are read
}

// readFrame reads one frame. io.EOF means that the other end closed between frames. begun is called when the first byte has come.
func readFrame(r io.Reader, limit int, begun func()) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:1]); err != nil {
		return nil, err
	}
	begun()
	if _, err := io.ReadFull(r, head[1:]); err != nil {
		return nil, noEOF(err)
	}
	n := binary.BigEndian.Uint32(head[:])
	if int64(n) > int64(limit) {
		return nil, fmt.Errorf("%w: %d bytes, at most %d are taken", ErrTooLong, n, limit)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return nil, noEOF(err)
	}
	return body, nil
}

// noEOF keeps an end in the middle of a frame from looking like an end between frames.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func writeFrame(w io.Writer, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("control frame: %w", err)
	}
	frame := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(body)), uint32(len(body)))
	_, err = w.Write(append(frame, body...))
	return err
}

// decodeRequest reads the body of a request frame. Members that are not known are refused: they come from a newer client that expects
// them to have an effect.
func decodeRequest(body []byte) (request, error) {
	var q request
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&q); err != nil {
		return q, fmt.Errorf("%w: %s", ErrMalformed, err.Error())
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return q, fmt.Errorf("%w: text after the request", ErrMalformed)
	}
	if len(q.Command) > MaxLine {
		return q, fmt.Errorf("%w: a command line has at most %d bytes", ErrTooLong, MaxLine)
	}
	return q, nil
}
