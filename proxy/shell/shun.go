package shell

import (
	"errors"
	"net/netip"
	"time"

	"imeproxy/proxy/config/keyword"
	"imeproxy/proxy/observe"
)

// shunCommands turn sources away and let them in again.
func shunCommands(h Shunner) []entry {
	addr := func(args keyword.Args) netip.Addr { return netip.MustParseAddr(args.Text("source")) }
	return []entry{
		{
			usage: "shun ADDRESS [SECONDS]", pattern: "shun <source:A.B.C.D> [<seconds:1-2592000>]", help: "Turn everything from an address away at once, standing calls too",
			run: func(_ *session, args keyword.Args) (observe.View, error) {
				return lines{}, h.Shun(addr(args), time.Duration(number(args, "seconds"))*time.Second)
			},
		},
		{
			usage: "no shun ADDRESS", pattern: "no shun <source:A.B.C.D>", help: "Let an address in again",
			run: func(_ *session, args keyword.Args) (observe.View, error) { return lines{}, h.Unshun(addr(args)) },
		},
		{usage: "show shun", help: "Addresses that are turned away", run: attempt(h.Shunned)},
		{
			usage: "clear shun", help: "Let all of them in again",
			run: func(*session, keyword.Args) (observe.View, error) {
				all, err := h.Shunned()
				for _, s := range all.Shuns {
					if a, e := netip.ParseAddr(s.Source); e == nil {
						err = errors.Join(err, h.Unshun(a))
					}
				}
				return lines{}, err
			},
		},
	}
}
