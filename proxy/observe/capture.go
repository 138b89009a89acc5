package observe

import (
	"fmt"
	"strings"
	"time"
)

// Captures is the answer to `show capture`.
type Captures struct {
	Captures List[Capture] `json:"captures"`
}

// Capture is one capture that runs, or has ended and whose file is there.
type Capture struct {
	Name    string `json:"name"`
	Type    string `json:"type"` // sip or interface
	Filter  string `json:"filter,omitempty"`
	State   string `json:"state"` // capturing, or why it has ended
	Packets uint64 `json:"packets"`
	Bytes   int64  `json:"bytes"` // of the file
	Limit   int64  `json:"limit"` // of the file
	Lost    uint64 `json:"lost"`
	File    string `json:"file"` // on disk0:
	// KeysUntil is when the keys of new TLS sessions are no more written into the file; nil: they are not.
	KeysUntil *time.Time `json:"keys_until,omitempty"`
}

// Text gives a capture a line, and one more where TLS keys are written.
func (c Captures) Text() string {
	if len(c.Captures) == 0 {
		return "No captures\n"
	}
	var b strings.Builder
	for _, x := range c.Captures {
		filter := ""
		if x.Filter != "" {
			filter = " " + Clean(x.Filter)
		}
		fmt.Fprintf(&b, "capture %s type %s%s [%s - %s, %d of %d bytes, %d lost] disk0:%s\n", Clean(x.Name), Clean(x.Type), filter, Clean(x.State), Count(x.Packets, "packet"), x.Bytes, x.Limit, x.Lost, Clean(x.File))
		if x.KeysUntil != nil {
			fmt.Fprintf(&b, "  with the keys of TLS sessions that begin before %s: whoever has the file can read them\n", x.KeysUntil.Format("15:04:05"))
		}
	}
	return b.String()
}

// CaptureContent is the answer to `show capture NAME`.
type CaptureContent struct {
	Name    string               `json:"name"`
	Packets List[CapturedPacket] `json:"packets"`
	Omitted int                  `json:"omitted"` // earlier ones that are not listed
}

// CapturedPacket is one packet in short.
type CapturedPacket struct {
	Number int       `json:"number"`
	At     time.Time `json:"at"`
	Length int       `json:"length"` // bytes
	Text   string    `json:"text"`
}

// Text gives a packet a line.
func (c CaptureContent) Text() string {
	var b strings.Builder
	if c.Omitted > 0 {
		b.WriteString(Count(c.Omitted, "earlier packet") + " not shown: see the file\n")
	}
	for _, p := range c.Packets {
		fmt.Fprintf(&b, "%4d: %s %s\n", p.Number, p.At.Format("15:04:05.000000"), Clean(p.Text))
	}
	b.WriteString(Count(len(c.Packets), "packet") + " shown\n")
	return b.String()
}
