package config

import (
	"fmt"
	"io"
	"log/slog"
)

const stars = "*****"

// Secret is a text that no print, log or encoder shows: each writes *****.
type Secret string

// Reveal returns the secret itself.
func (s Secret) Reveal() string { return string(s) }

// Masked says that the text held ***** where a secret belongs, as a printed configuration does.
func (s Secret) Masked() bool { return s == stars }

// String returns *****.
func (s Secret) String() string { return stars }

// Format writes ***** for every verb; without it %d would show the text.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, stars) }

// MarshalText returns *****.
func (s Secret) MarshalText() ([]byte, error) { return []byte(stars), nil }

// MarshalJSON returns "*****".
func (s Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + stars + `"`), nil }

// LogValue returns *****.
func (s Secret) LogValue() slog.Value { return slog.StringValue(stars) }

// Format writes the canonical text. Package fmt prints what a pointer leads to without its methods when the verb does not fit,
// which would show the password.
func (u *UCIME) Format(f fmt.State, _ rune) {
	var w writer
	writeUCIME(&Config{UCIME: u}, &w)
	_, _ = io.WriteString(f, w.b.String())
}
