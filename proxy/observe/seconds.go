package observe

import (
	"fmt"
	"strconv"
	"time"
)

// Seconds is a duration that is told in whole seconds, rounded down: as an ASA prints it (h:mm:ss, from a day on "1d02h") in text and as a
// number in JSON. Negative means "never" and is -1 in JSON.
type Seconds time.Duration

// SecondsOf makes Seconds of a duration.
func SecondsOf(d time.Duration) Seconds { return Seconds(d) }

func (s Seconds) whole() int64 {
	if s < 0 {
		return -1
	}
	return int64(s) / int64(time.Second)
}

// String gives h:mm:ss below a day, NdNNh above, "never" for a negative value.
func (s Seconds) String() string {
	const day = 24 * 60 * 60
	n := s.whole()
	switch {
	case n < 0:
		return "never"
	case n >= day:
		return fmt.Sprintf("%dd%02dh", n/day, n%day/3600)
	default:
		return fmt.Sprintf("%d:%02d:%02d", n/3600, n%3600/60, n%60)
	}
}

// MarshalJSON gives the number of whole seconds.
func (s Seconds) MarshalJSON() ([]byte, error) { return strconv.AppendInt(nil, s.whole(), 10), nil }

// UnmarshalJSON reads a number of seconds.
func (s *Seconds) UnmarshalJSON(b []byte) error {
	n, err := strconv.ParseInt(string(b), 10, 32)
	if err != nil {
		return fmt.Errorf("seconds: %w", err)
	}
	*s = Seconds(time.Duration(n) * time.Second)
	return nil
}
