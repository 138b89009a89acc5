package sdp

import (
	"bytes"
	"fmt"
	"strings"
)

// Caps on multipart bodies.
const (
	// MaxParts is the largest number of parts, those of inner bodies included.
	MaxParts = 16
	// MaxNesting is how deep multipart bodies may stand in each other.
	MaxNesting = 2
	// MaxPartHeader is the largest header of a part, in bytes.
	MaxPartHeader = 8 << 10
)

// FindPart finds the session description in a SIP body: the whole body where
// contentType is application/sdp, the one part of that type where it is
// multipart/*. sdp shares memory with body. replace returns a new body with
// another description in the place of sdp and every other byte as it came.
// ok is false, without error, where there is no description.
//
// Errors wrap ErrMultipart: broken or ambiguous boundaries (two readers could
// find different parts), a cap, a description in a transfer encoding that
// cannot be edited, or more than one description.
func FindPart(contentType string, body []byte) (sdp []byte, replace func(newSDP []byte) []byte, ok bool, err error) {
	if contentType == "application/sdp" { // as most write it
		return body[0:len(body):len(body)], func(newSDP []byte) []byte { return newSDP }, true, nil
	}
	f := finder{body: body}
	if err := f.walk(contentType, "", 0, len(body), 0); err != nil || !f.found {
		return nil, nil, false, err
	}
	start, end := f.start, f.end
	replace = func(newSDP []byte) []byte {
		return bytes.Join([][]byte{body[:start], newSDP, body[end:]}, nil)
	}
	return body[start:end:end], replace, true, nil
}

type finder struct {
	body       []byte
	parts      int
	found      bool
	start, end int
}

// walk looks at body[start:end], which has the given type and encoding.
func (f *finder) walk(contentType, encoding string, start, end, depth int) error {
	kind, ok := mediaType(contentType)
	if !ok {
		// A lenient reader could find a description where we find none.
		return fmt.Errorf("%w: content type %q", ErrMultipart, contentType)
	}
	isSDP, isMultipart := kinds(kind)
	if !isSDP && !isMultipart {
		return nil
	}
	switch strings.ToLower(strings.TrimSpace(encoding)) {
	case "", "7bit", "8bit", "binary":
	default:
		return fmt.Errorf("%w: transfer encoding %q", ErrMultipart, encoding)
	}
	if !isMultipart {
		if f.found {
			return fmt.Errorf("%w: more than one session description", ErrMultipart)
		}
		f.found, f.start, f.end = true, start, end
		return nil
	}
	if depth == MaxNesting {
		return fmt.Errorf("%w: nested more than %d deep", ErrMultipart, MaxNesting)
	}
	_, params, _ := strings.Cut(contentType, ";")
	boundary, err := boundaryParam(params)
	if err != nil {
		return err
	}
	parts, err := f.cut(boundary, start, end)
	if err != nil {
		return err
	}
	for _, p := range parts {
		if err := f.part(p[0], p[1], depth+1); err != nil {
			return err
		}
	}
	return nil
}

// cut finds the parts of body[start:end] as offsets, by the delimiter lines.
func (f *finder) cut(boundary string, start, end int) ([][2]int, error) {
	var parts [][2]int
	open := -1
	for at := start; at < end; {
		eol := bytes.IndexByte(f.body[at:end], '\n')
		next := end
		if eol >= 0 {
			next = at + eol + 1
		}
		rest, isDelimiter := strings.CutPrefix(string(f.body[at:min(next, at+2+len(boundary)+64)]), "--"+boundary)
		if !isDelimiter {
			at = next
			continue
		}
		// Some readers end lines at LF, others at CRLF alone; a delimiter
		// that only the first kind sees would hide a part from us.
		if at > start && (at < start+2 || f.body[at-2] != '\r') {
			return nil, fmt.Errorf("%w: boundary after a bare LF", ErrMultipart)
		}
		closing := strings.HasPrefix(rest, "--")
		rest = strings.TrimLeft(strings.TrimPrefix(rest, "--"), " \t")
		if rest != "\r\n" && (!closing || rest != "") {
			return nil, fmt.Errorf("%w: text after the boundary", ErrMultipart)
		}
		if open >= 0 {
			// The CRLF before a delimiter belongs to the delimiter, also
			// where it is the one that ended the delimiter before.
			parts = append(parts, [2]int{open, max(open, at-2)})
		}
		if closing {
			return parts, nil
		}
		if f.parts++; f.parts > MaxParts {
			return nil, fmt.Errorf("%w: more than %d parts", ErrMultipart, MaxParts)
		}
		open, at = next, next
	}
	return nil, fmt.Errorf("%w: no closing boundary", ErrMultipart)
}

// part reads the header of body[start:end] and walks its content.
func (f *finder) part(start, end, depth int) error {
	var h partHeader
	head := f.body[start:end]
	for at := 0; at < len(head); {
		eol := bytes.Index(head[at:], []byte("\r\n"))
		if eol < 0 || at+eol > MaxPartHeader {
			return fmt.Errorf("%w: no end of a part's header", ErrMultipart)
		}
		line := string(head[at : at+eol])
		at += eol + 2
		if line == "" {
			return f.walk(h.contentType, h.encoding, start+at, end, depth)
		}
		if err := h.add(line); err != nil {
			return err
		}
	}
	// A part may end with its header (RFC 2046 section 5.1.1); a description
	// put there would become part of the header.
	kind, ok := mediaType(h.contentType)
	if isSDP, isMultipart := kinds(kind); !ok || isSDP || isMultipart {
		return fmt.Errorf("%w: part without content", ErrMultipart)
	}
	return nil
}

// partHeader collects the two header fields that matter.
type partHeader struct {
	contentType, encoding string
	types                 int
	last                  string // name of the field that a folded line continues
}

func (h *partHeader) add(line string) error {
	if strings.ContainsAny(line, "\r\n\x00") {
		return fmt.Errorf("%w: part header %q", ErrMultipart, line)
	}
	folded := line[0] == ' ' || line[0] == '\t'
	name, value, ok := strings.Cut(line, ":")
	if folded {
		name, value, ok = h.last, " "+strings.TrimSpace(line), h.last != ""
	}
	if !ok {
		return fmt.Errorf("%w: part header %q", ErrMultipart, line)
	}
	h.last = strings.ToLower(strings.TrimSpace(name))
	switch h.last {
	case "content-type", "c":
		h.contentType += value
		if !folded {
			h.types++
		}
	case "content-transfer-encoding":
		h.encoding += value
	}
	if h.types > 1 {
		return fmt.Errorf("%w: part with two types", ErrMultipart)
	}
	return nil
}

// kinds tells whether a media type is one that matters here.
func kinds(kind string) (isSDP, isMultipart bool) {
	return kind == "application/sdp", strings.HasPrefix(kind, "multipart/")
}

// mediaType is "type/subtype" of a content type in lower case. White space may stand around the slash (RFC 3261 25.1: SLASH), and readers
// accept it. None at all is fine, two words are not.
func mediaType(contentType string) (kind string, ok bool) {
	kind, _, _ = strings.Cut(contentType, ";")
	if kind = strings.TrimSpace(kind); kind == "" {
		return "", contentType == kind || strings.TrimSpace(contentType) == ""
	}
	main, sub, slash := strings.Cut(strings.ToLower(kind), "/")
	main, sub = strings.TrimSpace(main), strings.TrimSpace(sub)
	if !slash || main == "" || sub == "" || strings.ContainsAny(main+sub, " \t,\"/<>@[]?={}\\") {
		return "", false
	}
	return main + "/" + sub, true
}

// boundaryParam finds the boundary among the parameters of a content type,
// quoted or not (RFC 2046 section 5.1.1: 1 to 70 characters).
func boundaryParam(params string) (string, error) {
	boundary, found := "", false
	for strings.TrimSpace(params) != "" {
		name, rest, ok := strings.Cut(params, "=")
		if !ok || strings.Contains(name, ";") && strings.TrimSpace(name[:strings.Index(name, ";")]) != "" {
			return "", fmt.Errorf("%w: content type parameters", ErrMultipart)
		}
		name = strings.ToLower(strings.Trim(name, "; \t"))
		value, rest, err := paramValue(strings.TrimLeft(rest, " \t"))
		if err != nil {
			return "", err
		}
		params = rest
		if name != "boundary" {
			continue
		}
		if found {
			return "", fmt.Errorf("%w: two boundaries", ErrMultipart)
		}
		boundary, found = value, true
	}
	if len(boundary) < 1 || len(boundary) > 70 || strings.HasSuffix(boundary, " ") || strings.ContainsAny(boundary, "\r\n\x00") {
		return "", fmt.Errorf("%w: boundary parameter", ErrMultipart)
	}
	return boundary, nil
}

// paramValue reads a token or a quoted string and returns what follows it.
func paramValue(s string) (value, rest string, err error) {
	if !strings.HasPrefix(s, `"`) {
		value, rest, _ = strings.Cut(s, ";")
		return strings.TrimSpace(value), rest, nil
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '\\' && i+1 < len(s):
			i++
			b.WriteByte(s[i])
		case s[i] == '"':
			rest = strings.TrimLeft(s[i+1:], " \t")
			if rest != "" && rest[0] != ';' {
				return "", "", fmt.Errorf("%w: text after a quoted parameter", ErrMultipart)
			}
			return b.String(), rest, nil
		default:
			b.WriteByte(s[i])
		}
	}
	return "", "", fmt.Errorf("%w: quoted parameter without end", ErrMultipart)
}
