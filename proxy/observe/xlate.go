package observe

import (
	"fmt"
	"strings"
)

// Xlates is the answer to `show xlate`.
type Xlates struct {
	Xlates List[Xlate] `json:"xlates"`
	// Omitted says that there are more connections than are listed.
	Omitted bool `json:"omitted,omitempty"`
}

// Xlate is one translation: a static one, or that of a connection.
type Xlate struct {
	Protocol        string `json:"protocol,omitempty"` // empty: all
	RealInterface   string `json:"real_interface"`
	Real            string `json:"real"` // address, or address:port
	MappedInterface string `json:"mapped_interface"`
	Mapped          string `json:"mapped"`
	Static          bool   `json:"static"`
	Portmap         bool   `json:"portmap"`
}

// Text gives the translations in an ASA's layout.
func (x Xlates) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d in use\nFlags: i - dynamic, r - portmap, s - static\n", len(x.Xlates))
	for _, t := range x.Xlates {
		kind, flags := "NAT", ""
		if t.Portmap {
			kind, flags = "PAT", "r"
		}
		if t.Static {
			flags = "s" + flags
		} else {
			flags += "i"
		}
		if t.Protocol != "" {
			kind = Clean(t.Protocol) + " " + kind
		}
		port := func(s string) string { return Clean(strings.Replace(s, ":", "/", 1)) }
		fmt.Fprintf(&b, "%s from %s:%s to %s:%s\n    flags %s\n", kind, Clean(t.RealInterface), port(t.Real), Clean(t.MappedInterface), port(t.Mapped), flags)
	}
	if x.Omitted {
		b.WriteString("There are more connections than are listed\n")
	}
	return b.String()
}

// PacketTrace is the answer to `packet-tracer`.
type PacketTrace struct {
	Phases  List[TracePhase] `json:"phases"`
	Input   string           `json:"input_interface"`
	Output  string           `json:"output_interface,omitempty"`
	Action  string           `json:"action"` // allow or drop
	Outcome string           `json:"outcome"`
}

// TracePhase is a step on the packet's way.
type TracePhase struct {
	Type   string `json:"type"`
	Result string `json:"result"`           // ALLOW or DROP
	Config string `json:"config,omitempty"` // the line that decided
	Text   string `json:"text"`
}

// Text gives the phases in an ASA's layout.
func (p PacketTrace) Text() string {
	var b strings.Builder
	for i, x := range p.Phases {
		fmt.Fprintf(&b, "Phase: %d\nType: %s\nResult: %s\n", i+1, Clean(x.Type), Clean(x.Result))
		if x.Config != "" {
			b.WriteString("Config:\n" + Clean(x.Config) + "\n")
		}
		b.WriteString("Additional Information:\n" + Clean(x.Text) + "\n\n")
	}
	fmt.Fprintf(&b, "Result:\ninput-interface: %s\n", Clean(p.Input))
	if p.Output != "" {
		fmt.Fprintf(&b, "output-interface: %s\n", Clean(p.Output))
	}
	fmt.Fprintf(&b, "Action: %s\n%s\n", Clean(p.Action), Clean(p.Outcome))
	return b.String()
}
