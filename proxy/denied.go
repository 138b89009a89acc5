package proxy

import (
	"fmt"

	"imeproxy/mapping"
)

// tellDenials logs what access lists deny, and what they permit where an entry says log, in the words of an ASA (messages 106023 and 106100).
func (a *Appliance) tellDenials() {
	if err := a.kernel.Denials(a.ctx, func(d mapping.Denial) { a.log.Warn(a.denial(d)) }); err != nil {
		a.log.Warn("what access lists deny is not told", "err", err)
	}
}

func (a *Appliance) denial(d mapping.Denial) string {
	in, out := a.nameOf(d.In), a.nameOf(d.Out)
	if d.Logged {
		word := "denied"
		if d.Permitted {
			word = "permitted"
		}
		return fmt.Sprintf("%%ASA-6-106100: access-list %s %s %s %s/%s(%d) -> %s/%s(%d) hit-cnt 1 first hit [0x0, 0x0]", d.List, word, d.Proto,
			in, d.Src.Addr(), d.Src.Port(), out, d.Dst.Addr(), d.Dst.Port())
	}
	if d.Proto == "icmp" {
		return fmt.Sprintf("%%ASA-4-106023: Deny icmp src %s:%s dst %s:%s (type %d, code %d) by access-group %q [0x0, 0x0]", in, d.Src.Addr(), out, d.Dst.Addr(), d.ICMPType, d.ICMPCo, d.List)
	}
	return fmt.Sprintf("%%ASA-4-106023: Deny %s src %s:%s/%d dst %s:%s/%d by access-group %q [0x0, 0x0]", d.Proto, in, d.Src.Addr(), d.Src.Port(), out, d.Dst.Addr(), d.Dst.Port(), d.List)
}
