package sdp

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// MediaEdit says what one m= line becomes.
type MediaEdit struct {
	// Port is the new port, 1 to 65535; 0 refuses the line. A line that came
	// with port 0 keeps it whatever stands here. A port count is dropped.
	Port int
	// Addr is the medium's address; invalid means Edit.Addr.
	Addr netip.Addr
	// Proto is the new transport; "" keeps what came.
	Proto string
	// Cryptos replace all a=crypto lines; none removes them.
	Cryptos []Crypto
	// RTCP is the port for an a=rtcp line that came; 0 means Port+1, or Port
	// where the line named the RTP port itself (RFC 8858).
	RTCP int
}

// Edit says what a description becomes on the other side.
type Edit struct {
	// Addr goes into o= and the session-level c=.
	Addr netip.Addr
	// Media has one element for each m= line.
	Media []MediaEdit
	// Sweep, where set, is given every line that is not rewritten by itself
	// (s=, i=, u=, e=, p=, a=..., an o= line without its address, an m= line)
	// without its line end, and returns what goes out instead, in one line
	// with the same type; "" removes the line where that is possible (not m=
	// and o=).
	Sweep func(line string) string
}

// dropped are the attributes that cannot survive a media relay: addresses and
// credentials of another path, keys of another leg, and offers to choose among
// alternatives that nobody behind the relay can honour (RFC 8839, 8842, 8122,
// 4567, 6189, 5939, 6871, 6947, 4570, 8843).
var dropped = map[string]bool{
	"candidate": true, "remote-candidates": true, "end-of-candidates": true,
	"ice-ufrag": true, "ice-pwd": true, "ice-lite": true, "ice-options": true,
	"ice-mismatch": true, "ice-pacing": true, "ice2": true,
	"fingerprint": true, "setup": true, "connection": true, "dtls-id": true, "tls-id": true,
	"crypto": true, "key-mgmt": true, "zrtp-hash": true,
	"acap": true, "tcap": true, "pcfg": true, "acfg": true, "csup": true, "creq": true,
	"rmcap": true, "omcap": true, "mfcap": true, "mscap": true, "lcfg": true, "sescap": true,
	"cap": true, "ccap": true, "icap": true, "bcap": true,
	"alt": true, "altc": true, "source-filter": true, "bundle-only": true,
}

// Rewrite edits o=, c=, m=, a=rtcp and a=crypto lines, removes what cannot
// survive a media relay (see the package's dropped attributes and k=), and
// leaves all other lines to e.Sweep. c=0.0.0.0 passes unchanged. A medium gets
// a c= line of its own where the session's would be wrong for it. The session
// is not changed. Errors wrap ErrEdit.
func (s *Session) Rewrite(e Edit) ([]byte, error) {
	if err := s.check(e); err != nil {
		return nil, err
	}
	e.Addr = e.Addr.Unmap()
	w := writer{edit: e, addr: e.Addr, text: e.Addr.String(), eol: s.eol(), out: make([]Line, 0, len(s.Lines)+8)}
	if err := w.session(s); err != nil {
		return nil, err
	}
	for i, m := range s.Media {
		if err := w.media(s, m, e.Media[i]); err != nil {
			return nil, err
		}
	}
	if n := len(w.out); n > 0 {
		// An inserted last line must not change how the body ends.
		for i := range w.out[:n-1] {
			if w.out[i].EOL == "" {
				w.out[i].EOL = w.eol
			}
		}
		w.out[n-1].EOL = s.Lines[len(s.Lines)-1].EOL
	}
	return join(w.out), nil
}

func (s *Session) check(e Edit) error {
	if !e.Addr.IsValid() {
		return fmt.Errorf("%w: no address", ErrEdit)
	}
	if len(e.Media) != len(s.Media) {
		return fmt.Errorf("%w: %d media for %d m= lines", ErrEdit, len(e.Media), len(s.Media))
	}
	for i, m := range e.Media {
		if m.Port < 0 || m.Port > 65535 || m.RTCP < 0 || m.RTCP > 65535 {
			return fmt.Errorf("%w: port of medium %d", ErrEdit, i)
		}
		if strings.ContainsAny(m.Proto, " \t\r\n") {
			return fmt.Errorf("%w: transport of medium %d", ErrEdit, i)
		}
	}
	return nil
}

// eol is the line end for lines that are added.
func (s *Session) eol() string {
	if e := s.Lines[0].EOL; e != "" {
		return e
	}
	return "\r\n"
}

// writer collects the lines of the edited description.
type writer struct {
	edit Edit
	addr netip.Addr // of the section at hand
	text string     // the same
	eol  string
	out  []Line
}

func (w *writer) put(text, eol string) { w.out = append(w.out, Line{text, eol}) }

func (w *writer) session(s *Session) error {
	for _, l := range s.Lines[:s.head] {
		if l.kind() == 'o' {
			if err := w.origin(l); err != nil {
				return err
			}
			continue
		}
		if err := w.common(l); err != nil {
			return err
		}
	}
	return nil
}

// origin replaces the address of o=. The part before it is swept apart, as a
// user name may hold an address and the new address must not be swept.
func (w *writer) origin(l Line) error {
	f := fields(l.Text)
	at := f[len(f)-3].start
	front, err := w.sweep(l.Text[:at], false)
	if err != nil {
		return err
	}
	w.put(w.putAddress(front, l.Text[at:], lastTwo(l.Text[at:])), l.EOL)
	return nil
}

// common treats the lines that stand in a session and in a medium alike.
func (w *writer) common(l Line) error {
	switch l.kind() {
	case 0:
		w.put(l.Text, l.EOL)
		return nil
	case 'c':
		w.put(w.connection(l.Text), l.EOL)
		return nil
	case 'k':
		return nil
	case 'a':
		name, value := attribute(l.Text)
		// Bundled media share one port; a relay gives each its own, and an
		// offer without the group makes both ends do so (RFC 8843 section 7.2).
		bundle := name == "group" && strings.HasPrefix(strings.ToUpper(value), "BUNDLE")
		if dropped[name] || bundle || name == "rtcp" {
			return nil
		}
	}
	text, err := w.sweep(l.Text, true)
	if err == nil && text != "" {
		w.put(text, l.EOL)
	}
	return err
}

// sweep calls the hook and refuses an answer that would add a line or turn one
// into another type.
func (w *writer) sweep(line string, mayRemove bool) (string, error) {
	if w.edit.Sweep == nil {
		return line, nil
	}
	text := w.edit.Sweep(line)
	if text == "" && mayRemove {
		return "", nil
	}
	if len(text) < 2 || text[:2] != line[:2] || strings.ContainsAny(text, "\r\n\x00") {
		return "", fmt.Errorf("%w: sweep made a %q line unusable", ErrEdit, line[:2])
	}
	return text, nil
}

func (w *writer) media(s *Session, m *Media, e MediaEdit) error {
	addr := w.edit.Addr
	if e.Addr.IsValid() {
		addr = e.Addr.Unmap()
	}
	if addr != w.addr {
		w.addr, w.text = addr, addr.String()
	}
	if m.Port == 0 || e.Port == 0 {
		e.Port, e.Cryptos = 0, nil
	}
	section := s.Lines[m.start:m.end]
	text, err := w.sweep(section[0].Text, false)
	if err != nil {
		return err
	}
	if text, err = mediaLine(text, e); err != nil {
		return err
	}
	w.put(text, section[0].EOL)
	needsConnection := e.Port != 0 && !m.ownConnection && !m.Hold &&
		(s.ConnectionHost == "" || w.addr != w.edit.Addr)
	at := cryptoPlace(section)
	for i, l := range section[1:] {
		if needsConnection && l.kind() != 'i' {
			w.addConnection()
			needsConnection = false
		}
		if i+1 == at {
			w.addCryptos(e.Cryptos)
		}
		if text, ok := rtcpLine(l, m, e, w.addr); ok {
			w.put(text, l.EOL)
			continue
		}
		if err := w.common(l); err != nil {
			return err
		}
	}
	if needsConnection {
		w.addConnection()
	}
	if at == len(section) {
		w.addCryptos(e.Cryptos)
	}
	return nil
}

func (w *writer) addConnection() {
	w.put("c=IN "+addressType(w.addr)+" "+w.text, w.eol)
}

func (w *writer) addCryptos(cryptos []Crypto) {
	for _, c := range cryptos {
		w.put(c.String(), w.eol)
	}
}

// cryptoPlace is the line of a section before which new a=crypto lines go: the
// first old one, else the first attribute, else the end (before empty lines).
func cryptoPlace(section []Line) int {
	first := 0
	end := len(section)
	for i, l := range section {
		switch {
		case l.kind() == 0:
			end = min(end, i)
		case l.kind() == 'a':
			if name, _ := attribute(l.Text); name == "crypto" {
				return i
			}
			if first == 0 {
				first = i
			}
		}
	}
	if first > 0 {
		return first
	}
	return end
}

// mediaLine puts port and transport in their places. The hook has swept the
// line, so its fields are counted anew.
func mediaLine(line string, e MediaEdit) (string, error) {
	f := fields(line)
	if len(f) < 3 {
		return "", fmt.Errorf("%w: sweep made an m= line unusable", ErrEdit)
	}
	proto := e.Proto
	if proto == "" {
		proto = f[2].of(line)
	}
	return line[:f[1].start] + strconv.Itoa(e.Port) + line[f[1].end:f[2].start] + proto + line[f[2].end:], nil
}

// rtcpLine rewrites the a=rtcp of a medium that is not refused; ok is false for
// every other line. One that cannot be read becomes the plain form.
func rtcpLine(l Line, m *Media, e MediaEdit, addr netip.Addr) (string, bool) {
	if l.kind() != 'a' || e.Port == 0 {
		return "", false
	}
	if name, _ := attribute(l.Text); name != "rtcp" {
		return "", false
	}
	r, ok := parseRTCP(l.Text)
	port := e.RTCP
	if port == 0 {
		port = e.Port + 1
		if ok && r.port == m.Port || port > 65535 {
			port = e.Port
		}
	}
	text := "a=rtcp:" + strconv.Itoa(port)
	if !ok || r.host == "" {
		return text, true
	}
	if old := literal(r.host); old.IsValid() && old.IsUnspecified() {
		return text + " IN " + r.at[0].of(l.Text) + " " + r.host, true
	}
	return text + " IN " + addressType(addr) + " " + addr.String(), true
}

// connection replaces the address of a c= line, TTL and count included. The
// unspecified address is a hold and stays.
func (w *writer) connection(line string) string {
	host, err := connectionHost(line)
	if old := literal(host); err == nil && old.IsValid() && old.IsUnspecified() {
		return line
	}
	return w.putAddress("", line, lastTwo(line))
}

func lastTwo(line string) [2]span {
	f := fields(line)
	return [2]span{f[len(f)-2], f[len(f)-1]}
}

// putAddress puts the section's address and its type in the place of two fields of the line, and other text before it.
func (w *writer) putAddress(before, line string, at [2]span) string {
	return before + line[:at[0].start] + addressType(w.addr) + line[at[0].end:at[1].start] + w.text + line[at[1].end:]
}

func addressType(addr netip.Addr) string {
	if addr.Is4() {
		return "IP4"
	}
	return "IP6"
}
