package testbed

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/bpf"
)

// Capture is a running or ended capture of one interface.
type Capture struct {
	File string

	sniffer *sniffer
	lab     *Lab
}

// Capture starts a capture; it has everything that crosses the interface from
// now on. ifName is the interface inside the host's namespace.
func (l *Lab) Capture(t T, h *Host, ifName string) *Capture {
	t.Helper()
	return l.capture(t, h, ifName, nil)
}

// CaptureSignaling is Capture that leaves media out: TCP, and SIP of the PSTN trunks.
func (l *Lab) CaptureSignaling(t T, h *Host, ifName string) *Capture {
	t.Helper()
	return l.capture(t, h, ifName, signalingFilter)
}

func (l *Lab) capture(t T, h *Host, ifName string, filter []bpf.Instruction) *Capture {
	t.Helper()
	name := fmt.Sprintf("%s-%s-%d.pcap", h.Name, ifName, time.Now().UnixNano())
	c := &Capture{File: filepath.Join(l.Dir, name), lab: l}
	var err error
	if c.sniffer, err = newSniffer(h, ifName, c.File, filter); err != nil {
		t.Fatalf("%v", err)
	}
	l.onClose(func() { c.sniffer.close() })
	return c
}

// Stop ends the capture; everything that was seen is in the file. A capture
// with holes proves nothing and ends the test.
func (c *Capture) Stop(t T) {
	t.Helper()
	if err := c.sniffer.close(); err != nil {
		t.Fatalf("capture %s: %v", filepath.Base(c.File), err)
	}
}

// Packets reads what has been captured so far.
func (c *Capture) Packets(t T) []Packet {
	t.Helper()
	p, err := ReadPackets(c.File)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return p
}

// Streams are the RTP streams captured so far.
func (c *Capture) Streams(t T) []*RTPStream {
	t.Helper()
	return Streams(c.Packets(t))
}

// Tshark runs tshark on the capture and returns what it prints.
func (c *Capture) Tshark(t T, args ...string) string {
	t.Helper()
	cmd := exec.Command("tshark", append([]string{"-n", "-r", c.File}, args...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	// Settings of the user that runs the test must not matter.
	cmd.Env = append(cmd.Environ(), "HOME="+c.lab.Dir)
	if err := cmd.Run(); err != nil {
		t.Fatalf("tshark %s: %v: %s", strings.Join(args, " "), err, tail(stderr.String(), 1000))
	}
	return stdout.String()
}

// TalkFor waits until each phone has sent and received RTP of the given
// length in each of the captures: progress of the media, not of the clock,
// ends the wait. Captures must see both directions.
func (l *Lab) TalkFor(t T, d time.Duration, captures ...*Capture) {
	t.Helper()
	begin := time.Now()
	var short string
	ok := eventually(d+20*time.Second, func() bool {
		short = ""
		for _, c := range captures {
			if n := c.longEnough(begin, d); n < 2 {
				short = fmt.Sprintf("%d streams of %v in %s", n, d, filepath.Base(c.File))
			}
		}
		return short == ""
	})
	if !ok {
		t.Fatalf("media: %s, want 2", short)
	}
}

// longEnough counts the streams that have lasted for d since begin.
func (c *Capture) longEnough(begin time.Time, d time.Duration) (n int) {
	packets, err := ReadPackets(c.File)
	if err != nil {
		return 0
	}
	for _, s := range Streams(between(packets, begin, time.Now())) {
		if s.Packets[len(s.Packets)-1].Time.Sub(s.Packets[0].Time) >= d {
			n++
		}
	}
	return n
}

// TCPMessages are the SIP messages of all TCP connections in the clear.
func (c *Capture) TCPMessages(t T) []SIPMessage {
	t.Helper()
	return c.messages(t, "tcp", nil)
}

// TLSMessages are the SIP messages of all TLS connections, decrypted with the
// proxies' key logs; one side's keys are enough.
func (c *Capture) TLSMessages(t T, keyLogs ...string) []SIPMessage {
	t.Helper()
	var all strings.Builder
	for _, f := range keyLogs {
		all.WriteString(readAll(f))
	}
	file := c.File + ".keys"
	writeFile(t, file, all.String())
	return c.messages(t, "tls", []string{"-d", fmt.Sprintf("tcp.port==%d,tls", TrunkPort), "-o", "tls.keylog_file:" + file})
}

// messages lets tshark put the connections together and cuts them into
// messages.
func (c *Capture) messages(t T, layer string, options []string) []SIPMessage {
	t.Helper()
	ends := make(map[string][2]netip.AddrPort)
	args := append([]string{"-q"}, options...)
	for _, l := range nonEmptyLines(c.Tshark(t, "-Y", "tcp.len > 0", "-T", "fields", "-E", "separator=,",
		"-e", "tcp.stream", "-e", "ip.src", "-e", "tcp.srcport", "-e", "ip.dst", "-e", "tcp.dstport")) {
		f := strings.Split(l, ",")
		if len(f) != 5 || ends[f[0]] != [2]netip.AddrPort{} {
			continue
		}
		src, err1 := netip.ParseAddrPort(f[1] + ":" + f[2])
		dst, err2 := netip.ParseAddrPort(f[3] + ":" + f[4])
		if err := errors.Join(err1, err2); err != nil {
			t.Fatalf("tshark's fields: %v", err)
		}
		ends[f[0]] = [2]netip.AddrPort{src, dst}
		args = append(args, "-z", "follow,"+layer+",raw,"+f[0])
	}
	if len(ends) == 0 {
		return nil
	}
	var out []SIPMessage
	for block := range strings.SplitSeq(c.Tshark(t, args...), "Follow: ") {
		out = append(out, parseFollow(block, ends)...)
	}
	return out
}

var (
	followStream = regexp.MustCompile(`(?m)^Filter: tcp\.stream eq (\d+)`)
	followNode   = regexp.MustCompile(`^Node ([01]): (.*)`)
)

// parseFollow reads one connection of tshark's follow report: lines of hex,
// those of the second node behind a tab. A node that sent nothing has no
// address there, hence ends: both ends of each connection.
func parseFollow(block string, ends map[string][2]netip.AddrPort) (out []SIPMessage) {
	m := followStream.FindStringSubmatch(block)
	if m == nil {
		return nil
	}
	node := ends[m[1]]
	var rest [2][]byte
	for line := range strings.Lines(block) {
		line = strings.TrimRight(line, "\r\n")
		if m := followNode.FindStringSubmatch(line); m != nil {
			if n := int(m[1][0] - '0'); m[2] == node[1-n].String() {
				node[0], node[1] = node[1], node[0]
			}
			continue
		}
		from := 0
		if strings.HasPrefix(line, "\t") {
			from, line = 1, line[1:]
		}
		b, err := hex.DecodeString(line)
		if err != nil {
			continue // headings
		}
		rest[from] = append(rest[from], b...)
		var msgs []SIPMessage
		msgs, rest[from] = cutMessages(rest[from])
		for _, m := range msgs {
			m.Src, m.Dst = node[from], node[1-from]
			out = append(out, m)
		}
	}
	for from, r := range rest {
		if r = bytes.Trim(r, "\r\n"); len(r) > 0 {
			m := parseSIP(r) // half a message: show it, do not hide it
			m.Src, m.Dst, m.Partial = node[from], node[1-from], true
			out = append(out, m)
		}
	}
	return out
}

// SIPMessage is a message as it stood on the wire.
type SIPMessage struct {
	Src, Dst netip.AddrPort
	Start    string // request or status line
	Headers  []SIPHeader
	Body     string
	Raw      string
	Partial  bool // the connection ended within it
}

// SIPHeader is one header field line, unfolded.
type SIPHeader struct{ Name, Value string }

// Get is the first value of a header, "" when there is none. Names are
// compared without case; compact forms are not resolved.
func (m SIPMessage) Get(name string) string {
	for _, h := range m.Headers {
		if strings.EqualFold(h.Name, name) {
			return h.Value
		}
	}
	return ""
}

// Method is the method of a request, "" for a response.
func (m SIPMessage) Method() string {
	if m.Status() != 0 {
		return ""
	}
	method, _, _ := strings.Cut(m.Start, " ")
	return method
}

// Status is the code of a response, 0 for a request.
func (m SIPMessage) Status() int {
	f := strings.Fields(m.Start)
	if len(f) < 2 || f[0] != "SIP/2.0" {
		return 0
	}
	n, err := strconv.Atoi(f[1])
	if err != nil {
		return 0
	}
	return n
}

// CryptoSuites are the suites of the a=crypto lines in the body, in order.
func (m SIPMessage) CryptoSuites() []string {
	var out []string
	for _, l := range nonEmptyLines(m.Body) {
		if v, ok := strings.CutPrefix(l, "a=crypto:"); ok {
			if f := strings.Fields(v); len(f) >= 3 {
				out = append(out, f[1])
			}
		}
	}
	return out
}

// cutMessages cuts whole messages off the front of a stream and returns what
// is left. Keep-alives (RFC 5626 CRLF) are dropped.
func cutMessages(b []byte) (out []SIPMessage, rest []byte) {
	for {
		b = bytes.TrimLeft(b, "\r\n")
		head, body, ok := bytes.Cut(b, []byte("\r\n\r\n"))
		if !ok {
			return out, b
		}
		n := contentLength(parseSIP(head))
		if len(body) < n {
			return out, b
		}
		out = append(out, parseSIP(b[:len(head)+4+n]))
		b = body[n:]
	}
}

// contentLength is the announced length of the body, 0 when there is none.
func contentLength(m SIPMessage) int {
	v := m.Get("Content-Length")
	if v == "" {
		v = m.Get("l")
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 0 {
		return 0
	}
	return n
}

// parseSIP takes a message apart without judging it.
func parseSIP(b []byte) SIPMessage {
	head, body, _ := strings.Cut(string(b), "\r\n\r\n")
	m := SIPMessage{Raw: string(b), Body: body}
	for i, line := range strings.Split(head, "\r\n") {
		switch {
		case i == 0:
			m.Start = line
		case strings.HasPrefix(line, " ") || strings.HasPrefix(line, "\t"):
			if n := len(m.Headers); n > 0 {
				m.Headers[n-1].Value += " " + strings.TrimSpace(line)
			}
		default:
			name, value, _ := strings.Cut(line, ":")
			m.Headers = append(m.Headers, SIPHeader{Name: strings.TrimSpace(name), Value: strings.TrimSpace(value)})
		}
	}
	return m
}

// TLSSuites are the cipher suites that servers chose, as tshark names them.
func (c *Capture) TLSSuites(t T) []string {
	t.Helper()
	out := nonEmptyLines(c.Tshark(t, "-Y", "tls.handshake.type == 2", "-T", "fields", "-e", "tls.handshake.ciphersuite"))
	sort.Strings(out)
	return slices.Compact(out)
}
