package observe

import (
	"fmt"
	"strings"
)

// Shuns is the answer to `show shun`.
type Shuns struct {
	Shuns List[Shun] `json:"shuns"`
}

// Shun is a source that is turned away.
type Shun struct {
	Source string  `json:"source"`
	Left   Seconds `json:"left"` // -1: for good
}

// Text gives a source a line.
func (s Shuns) Text() string {
	if len(s.Shuns) == 0 {
		return "No shuns\n"
	}
	var b strings.Builder
	for _, x := range s.Shuns {
		if x.Left < 0 {
			fmt.Fprintf(&b, "shun %s\n", Clean(x.Source))
		} else {
			fmt.Fprintf(&b, "shun %s for %s\n", Clean(x.Source), x.Left)
		}
	}
	return b.String()
}
