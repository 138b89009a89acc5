package sipalg

import "strings"

// cutList cuts the first element off a comma-separated value. Commas within
// quoted strings and angle brackets separate nothing (RFC 3261 7.3.1).
func cutList(s string) (element, rest string, more bool) {
	angle := false
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '"':
			if angle {
				continue
			}
			end := quotedEnd(s, i)
			if end < 0 {
				return s, "", false
			}
			i = end - 1
		case '<':
			angle = true
		case '>':
			angle = false
		case ',':
			if !angle {
				return s[:i], s[i+1:], true
			}
		}
	}
	return s, "", false
}

// quotedEnd returns the index after the quoted string that begins at s[i], or -1
// when it does not end.
func quotedEnd(s string, i int) int {
	for i++; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return -1
}

// address is a name-addr or addr-spec with header parameters, cut into three
// pieces that make up the input again when they are put together.
type address struct {
	pre  string // display name, white space and "<", if any
	uri  string
	post string // ">" and the header parameters, if any
}

func (a address) bracketed() bool { return strings.HasPrefix(a.post, ">") }

// params returns the header parameters with their leading semicolon.
func (a address) params() string { return strings.TrimPrefix(a.post, ">") }

// splitAddress cuts an element at its URI. It fails when quotes or brackets do
// not pair, when the display name is no sequence of tokens nor a quoted string,
// or when something other than parameters follows.
func splitAddress(s string) (address, bool) {
	i := 0
	for i < len(s) && isBlank(s[i]) {
		i++
	}
	if i < len(s) && s[i] == '"' {
		if i = quotedEnd(s, i); i < 0 {
			return address{}, false
		}
		for i < len(s) && isBlank(s[i]) {
			i++
		}
		if i >= len(s) || s[i] != '<' {
			return address{}, false
		}
		return splitBracket(s, i)
	}
	if open := strings.IndexByte(s, '<'); open >= 0 {
		if outsideName.index(s[:open]) >= 0 {
			return address{}, false
		}
		return splitBracket(s, open)
	}
	// Without brackets every parameter is one of the header, and a question
	// mark or comma cannot stand in the URI (RFC 3261 20.10).
	end := specEnd.index(s[i:])
	if end < 0 {
		end = len(s)
	} else {
		end += i
	}
	if notInSpec.index(s[i:end]) >= 0 || end == i {
		return address{}, false
	}
	return address{s[:i], s[i:end], s[end:]}, paramsOK(s[end:])
}

func splitBracket(s string, open int) (address, bool) {
	end := strings.IndexByte(s[open:], '>')
	if end < 0 {
		return address{}, false
	}
	end += open
	a := address{s[:open+1], s[open+1 : end], s[end:]}
	return a, paramsOK(s[end+1:])
}

// param is one parameter of a header: ";name=value" with the white space that
// stood around its parts.
type param struct {
	name, value string
	hasValue    bool
	text        string // as written, from the semicolon on
}

// cutParam cuts the first parameter off s, which begins with optional white
// space and a semicolon. ok is false at the end and at anything malformed; the
// end is reached when s is blank.
func cutParam(s string) (p param, rest string, ok bool) {
	i := 0
	for i < len(s) && isBlank(s[i]) {
		i++
	}
	if i == len(s) || s[i] != ';' {
		return param{}, s, false
	}
	end := i + 1
	for end < len(s) && s[end] != ';' {
		if s[end] == '"' {
			q := quotedEnd(s, end)
			if q < 0 {
				return param{}, s, false
			}
			end = q
			continue
		}
		end++
	}
	name, value, has := strings.Cut(s[i+1:end], "=")
	p = param{trim(name), trim(value), has, s[:end]}
	if !isToken(p.name) || has && !paramValueOK(p.value) {
		return param{}, s, false
	}
	return p, s[end:], true
}

// paramValueOK accepts a token, a host (with brackets and colons), a quoted
// string; it is wider than gen-value by "/" and the like, which extension
// parameters use, and refuses white space, commas and stray quotes.
func paramValueOK(v string) bool {
	if v == "" {
		return false
	}
	if v[0] == '"' {
		return quotedEnd(v, 0) == len(v)
	}
	return notInValue.index(v) < 0
}

func paramsOK(s string) bool {
	for {
		_, rest, ok := cutParam(s)
		if !ok {
			return trim(s) == ""
		}
		s = rest
	}
}

// findParam returns a parameter's value from ";a=b;c" without regard to case.
func findParam(s, name string) (string, bool) {
	for {
		p, rest, ok := cutParam(s)
		if !ok {
			return "", false
		}
		if strings.EqualFold(p.name, name) {
			return p.value, true
		}
		s = rest
	}
}

// addressParam returns a header parameter of a From, To or the like.
func addressParam(value, name string) string {
	a, ok := splitAddress(value)
	if !ok {
		return ""
	}
	v, _ := findParam(a.params(), name)
	return v
}

// AddressURI returns the URI of a From, To, Contact or Route value, and its
// header parameters with their leading semicolon. ok is false when the value is
// malformed.
func AddressURI(value string) (uri, params string, ok bool) {
	a, ok := splitAddress(value)
	return a.uri, trim(a.params()), ok
}
