package tlsproxy

import (
	"encoding/base64"
	"fmt"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxNameChars is the guide's limit for trustpoint names; maxNameBytes keeps the encoded form below the 255 bytes of a file name.
const (
	maxNameChars = 128
	maxNameBytes = 180
)

var plainName = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._-]*$`)

// checkName refuses names that nobody could type or print; what is then safe as a file name is fileName's matter.
func checkName(kind, name string) error {
	switch {
	case name == "":
		return fmt.Errorf("%w: the %s has no name", ErrName, kind)
	case !utf8.ValidString(name):
		return fmt.Errorf("%w: the %s %q is not valid UTF-8", ErrName, kind, name)
	case utf8.RuneCountInString(name) > maxNameChars || len(name) > maxNameBytes:
		return fmt.Errorf("%w: the %s is longer than %d characters", ErrName, kind, maxNameChars)
	case strings.TrimSpace(name) != name:
		return fmt.Errorf("%w: the %s %q begins or ends with a space", ErrName, kind, name)
	}
	for _, r := range name {
		if !unicode.IsPrint(r) {
			return fmt.Errorf("%w: the %s %q holds a control character", ErrName, kind, name)
		}
	}
	return nil
}

// fileName maps a checked name to one path element. Names that could mean something to the file system (a slash, a leading dot) are encoded whole,
// so that no name reaches outside its folder and no two names share a file.
func fileName(name string) string {
	if plainName.MatchString(name) {
		return name
	}
	return "=" + base64.RawURLEncoding.EncodeToString([]byte(name))
}

// nameOfFile is the inverse of fileName; false for files that the store did not make.
func nameOfFile(file string) (string, bool) {
	name := file
	if enc, ok := strings.CutPrefix(file, "="); ok {
		raw, err := base64.RawURLEncoding.DecodeString(enc)
		if err != nil {
			return "", false
		}
		name = string(raw)
	}
	return name, checkName("name", name) == nil && fileName(name) == file
}
