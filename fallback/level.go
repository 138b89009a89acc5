package fallback

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Level is the sensitivity that a call agent asks for: how much bad quality it takes
// before a call moves.
type Level int

// The levels, from no fallback to the most eager.
const (
	Disabled Level = iota
	Utility
	Accommodative
	Nominal
	Moderate
	Aggressive
)

// DefaultLevel holds for a call whose call agent sends no level and where none is
// configured.
const DefaultLevel = Nominal

// Defaults of the timers (guide lines 5073-5080).
const (
	DefaultMonitoring = 100 * time.Millisecond // 10 to 600 ms
	DefaultHoldDown   = 20 * time.Second       // 10 to 360 s
)

var levelNames = [...]string{"disabled", "utility", "accommodative", "nominal", "moderate", "aggressive"}

func (l Level) String() string {
	if l < Disabled || l > Aggressive {
		return fmt.Sprintf("level %d", int(l))
	}
	return levelNames[l]
}

// ErrSensitivity is returned for an X-Cisco-UC-IME-Fallback value that names no level.
var ErrSensitivity = errors.New("no sensitivity level")

// ParseSensitivity reads the value of X-Cisco-UC-IME-Fallback, "sensitivity=N" with N
// from 0 to 5 (the parameter's name in any case). A value that cannot be read changes
// nothing: the caller keeps the level that the call has.
func ParseSensitivity(value string) (Level, error) {
	name, n, ok := strings.Cut(strings.Trim(value, " \t"), "=")
	if !ok || !strings.EqualFold(strings.TrimRight(name, " \t"), "sensitivity") {
		return 0, fmt.Errorf("%w in %q", ErrSensitivity, value)
	}
	if n = strings.TrimLeft(n, " \t"); len(n) != 1 || n[0] < '0' || n[0] > '5' {
		return 0, fmt.Errorf("%w in %q: want 0 to 5", ErrSensitivity, value)
	}
	return Level(n[0] - '0'), nil
}

// Thresholds are the figures of one level; a stream is bad when one is exceeded. They
// are whole numbers so that comparisons are exact.
type Thresholds struct {
	Loss   int           // thousandths of a percent, to 100000
	Burst  time.Duration // to 8000 ms, in microseconds
	PDV    time.Duration // to 8000 ms, in microseconds
	Events int           // 0 to 8
}

// Table holds the thresholds by level; that of Disabled is not used.
type Table [Aggressive + 1]Thresholds

// Builtin returns the values that hold where no file says otherwise.
func Builtin() Table {
	const ms = time.Millisecond
	return Table{
		Utility:       {20000, 1200 * ms, 400 * ms, 7},
		Accommodative: {10000, 600 * ms, 200 * ms, 5},
		Nominal:       {5000, 300 * ms, 80 * ms, 3},
		Moderate:      {2000, 120 * ms, 40 * ms, 2},
		Aggressive:    {500, 40 * ms, 20 * ms, 1},
	}
}

// Bad reports whether the figures exceed a threshold of the level. Disabled finds
// nothing bad.
func (t *Table) Bad(l Level, f *Figures) bool {
	if l <= Disabled || l > Aggressive {
		return false
	}
	th := &t[l]
	return f.lossExceeds(th.Loss) || f.Burst > th.Burst || f.PDV > th.PDV || f.Events > th.Events
}
