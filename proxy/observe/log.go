package observe

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Masked stands in every output for a secret.
const Masked = "*****"

// MaxCallID bounds a call identifier in log lines; the peer chooses its length.
const MaxCallID = 128

// Secret is text that no log line, JSON document or format verb shows. Reveal gives the value.
type Secret string

// String gives five asterisks.
func (Secret) String() string { return Masked }

// GoString keeps %#v from showing the value.
func (Secret) GoString() string { return Masked }

// LogValue keeps slog from showing the value.
func (Secret) LogValue() slog.Value { return slog.StringValue(Masked) }

// MarshalText keeps JSON documents from showing the value.
func (Secret) MarshalText() ([]byte, error) { return []byte(Masked), nil }

// Reveal gives the secret itself.
func (s Secret) Reveal() string { return string(s) }

// LogConfig sets the log up.
type LogConfig struct {
	Format string       // "text" (also "") or "json"
	Level  slog.Leveler // nil = Info; a *slog.LevelVar can be changed later
}

// NewLogger makes a logger that writes to w (standard error in the daemon). Attributes whose key names a secret (password, passphrase,
// private_key, master_key, ticket...) are masked whatever their type: a last net under the types that mask themselves.
func NewLogger(w io.Writer, cfg LogConfig) (*slog.Logger, error) {
	o := &slog.HandlerOptions{Level: cfg.Level, ReplaceAttr: maskSecrets}
	switch cfg.Format {
	case "", "text":
		return slog.New(slog.NewTextHandler(w, o)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, o)), nil
	}
	return nil, fmt.Errorf("log format %q: must be text or json", cfg.Format)
}

// ParseLevel reads debug, info, warn (warning) or error.
func ParseLevel(s string) (slog.Level, error) {
	switch strings.ToLower(s) {
	case "debug":
		return slog.LevelDebug, nil
	case "", "info":
		return slog.LevelInfo, nil
	case "warn", "warning":
		return slog.LevelWarn, nil
	case "error":
		return slog.LevelError, nil
	}
	return 0, fmt.Errorf("log level %q: must be debug, info, warn or error", s)
}

var secretKeys = map[string]bool{
	"password": true, "passphrase": true, "secret": true, "private_key": true, "master_key": true, "master": true, "salt": true,
	"ticket_header": true, "crypto": true, "inline": true,
}

// secretBegins has a bit for the first letter of each key in secretKeys, by the key's length: it tells almost all others.
var secretBegins = func() (bits [16]uint32) {
	for k := range secretKeys {
		bits[len(k)] |= 1 << (k[0] & 31)
	}
	return bits
}()

func maskSecrets(_ []string, a slog.Attr) slog.Attr {
	if n := len(a.Key); n > 0 && n < len(secretBegins) && secretBegins[n]&(1<<(a.Key[0]&31)) != 0 && secretKeys[strings.ToLower(a.Key)] {
		return slog.String(a.Key, Masked)
	}
	return a
}

// WithCall gives a logger whose lines carry the call's id. The id comes from the network: it is cut to MaxCallID bytes and control
// characters become "?".
func WithCall(log *slog.Logger, callID string) *slog.Logger { return log.With(CallID(callID)) }

// CallID is what WithCall adds, for a single line: a logger of its own costs more than the line does.
func CallID(callID string) slog.Attr { return slog.String("call_id", cut(Clean(callID), MaxCallID)) }

// Info writes a line as log.Info does, but for what finds out which line of the source it comes from, that no log of ours shows: for the lines of
// every call.
func Info(log *slog.Logger, msg string, attrs ...slog.Attr) {
	ctx, h := context.Background(), log.Handler()
	if !h.Enabled(ctx, slog.LevelInfo) {
		return
	}
	r := slog.NewRecord(time.Now(), slog.LevelInfo, msg, 0)
	r.AddAttrs(attrs...)
	_ = h.Handle(ctx, r)
}

// Clean replaces control characters and bytes that are no UTF-8 by "?", so that text from the network can neither forge a line nor move
// the cursor of a terminal. Format characters (direction overrides) count as control characters.
func Clean(s string) string {
	plain := true
	for i := 0; i < len(s) && plain; i++ {
		plain = s[i] >= ' ' && s[i] < 0x7f
	}
	if plain {
		return s
	}
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r == '\u2028' || r == '\u2029' {
			return '?'
		}
		return r
	}, s)
}

// cut shortens s to n bytes at a character's border.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
