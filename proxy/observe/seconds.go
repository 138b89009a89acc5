package observe

import (
	"fmt"
	"time"
)

// Seconds is a span of whole seconds. It prints as an ASA does (h:mm:ss, from a day on "1d02h") and is a number in JSON. Negative means
// "never".
type Seconds int64

// SecondsOf rounds a duration down to whole seconds; a negative duration stays negative.
func SecondsOf(d time.Duration) Seconds {
	if d < 0 {
		return -1
	}
	return Seconds(d / time.Second)
}

// String gives h:mm:ss below a day, NdNNh above, "never" for a negative value.
func (s Seconds) String() string {
	const day = 24 * 60 * 60
	switch {
	case s < 0:
		return "never"
	case s >= day:
		return fmt.Sprintf("%dd%02dh", s/day, s%day/3600)
	default:
		return fmt.Sprintf("%d:%02d:%02d", s/3600, s%3600/60, s%60)
	}
}
