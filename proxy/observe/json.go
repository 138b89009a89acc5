package observe

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// View is a snapshot that can be printed. Every snapshot of this package is one.
type View interface {
	Text() string // the layout of the show command; ends in a line feed
}

// List is a slice that is [] in JSON when it is nil, so that a reader of the document need not tell null from empty. It is assignable
// from a plain slice.
type List[T any] []T

// MarshalJSON gives [] for a nil list.
func (l List[T]) MarshalJSON() ([]byte, error) {
	if l == nil {
		return []byte("[]"), nil
	}
	return json.Marshal([]T(l))
}

// JSON gives the document of a snapshot: indented by two blanks, one line feed at the end. Control and format characters that
// encoding/json leaves alone are escaped too, since the document may be read on a terminal.
func JSON(v View) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return nil, fmt.Errorf("json of %T: %w", v, err)
	}
	return escapeControls(b.Bytes()), nil
}

// escapeControls relies on such characters standing only inside strings of a JSON document.
func escapeControls(doc []byte) []byte {
	plain := 0
	for plain < len(doc) && doc[plain] >= 0x20 && doc[plain] < 0x7f {
		plain++
	}
	if plain == len(doc) {
		return doc
	}
	out := append(make([]byte, 0, len(doc)+16), doc[:plain]...)
	for i := plain; i < len(doc); {
		if c := doc[i]; c >= 0x20 && c < 0x7f {
			out = append(out, c)
			i++
			continue
		}
		r, n := utf8.DecodeRune(doc[i:])
		switch {
		case r != '\n' && (unicode.IsControl(r) || unicode.Is(unicode.Cf, r)) && r <= 0xffff:
			out = fmt.Appendf(out, `\u%04x`, r)
		case unicode.Is(unicode.Cf, r): // tags and other format characters beyond the first plane
			out = fmt.Appendf(out, `\u%04x\u%04x`, 0xd800+(r-0x10000)>>10, 0xdc00+(r-0x10000)&0x3ff)
		default:
			out = append(out, doc[i:i+n]...)
		}
		i += n
	}
	return out
}

// Snake gives the JSON key of a printed label: "Ticket DID mismatch" is "ticket_did_mismatch".
func Snake(label string) string {
	return strings.Join(strings.FieldsFunc(strings.ToLower(label), func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r)
	}), "_")
}

// Label gives the printed label of a snake-case name: "max_forwards_zero" is "Max forwards zero".
func Label(snake string) string {
	s := strings.ReplaceAll(snake, "_", " ")
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

// object is a JSON object that keeps its order, so that documents read in the order of the printed lines.
type object []member

type member struct {
	key   string
	value any
}

// MarshalJSON writes the members in order.
func (o object) MarshalJSON() ([]byte, error) {
	b := []byte{'{'}
	for i, m := range o {
		if i > 0 {
			b = append(b, ',')
		}
		k, err := json.Marshal(m.key)
		if err != nil {
			return nil, err
		}
		v, err := json.Marshal(m.value)
		if err != nil {
			return nil, err
		}
		b = append(append(append(b, k...), ':'), v...)
	}
	return append(b, '}'), nil
}
