package shell

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"slices"
	"strings"
	"time"

	"imeproxy/proxy/capture"
	"imeproxy/proxy/config"
	"imeproxy/proxy/config/keyword"
	"imeproxy/proxy/disk"
	"imeproxy/proxy/observe"
	"imeproxy/proxy/probe"
)

// nameifs are the interfaces that commands may name.
func (x *executor) nameifs() []observe.InterfaceState {
	return slices.DeleteFunc(slices.Clone(x.backend.Interfaces().Interfaces), func(i observe.InterfaceState) bool { return i.Nameif == "" })
}

// nameif finds an interface by its name.
func (x *executor) nameif(name string) (observe.InterfaceState, bool) {
	all := x.nameifs()
	i := slices.IndexFunc(all, func(i observe.InterfaceState) bool { return i.Nameif == name })
	if i < 0 {
		return observe.InterfaceState{}, false
	}
	return all[i], true
}

// kinds adds the arguments whose values depend on the running appliance.
func (x *executor) kinds() {
	x.tree.Define("NAMEIF", keyword.Kind{
		Check: func(w string) error {
			if _, ok := x.nameif(w); !ok {
				return errors.New("the name of an interface is expected, see show interface")
			}
			return nil
		},
		Suggest: func() []string {
			var names []string
			for _, i := range x.nameifs() {
				names = append(names, i.Nameif)
			}
			return names
		},
	})
	running := func(names func(*config.Config) []string) func() []string {
		return func() []string {
			if x.keeper == nil {
				return nil
			}
			return names(x.keeper.Running())
		}
	}
	x.tree.Define("ACL", keyword.Kind{Label: "WORD", Suggest: running(func(c *config.Config) (out []string) {
		for _, l := range c.AccessLists {
			out = append(out, l.Name)
		}
		return out
	})})
	x.tree.Define("TRUSTPOINT", keyword.Kind{Label: "WORD", Suggest: running(func(c *config.Config) (out []string) {
		for _, p := range c.Trustpoints {
			out = append(out, p.Name)
		}
		return out
	})})
	if f, ok := x.backend.(Storage); ok {
		files := func() (out []string) {
			all, _ := f.Disk().List() // nothing is suggested where nothing can be read
			for _, x := range all {
				out = append(out, "disk0:"+x.Name)
			}
			return out
		}
		x.tree.Define("PLACE", keyword.Kind{Check: checkPlace, Suggest: files})
		x.tree.Define("FILE", keyword.Kind{Label: "disk0:FILE", Suggest: files, Check: func(w string) error {
			_, err := disk.Name(w)
			return err
		}})
	}
	if _, ok := x.backend.(Machine); ok {
		x.tree.Define("UPGRADE", keyword.Kind{Label: "disk0:FILE", Suggest: func() (out []string) {
			if f, ok := x.backend.(Storage); ok {
				all, _ := f.Disk().List() // as above
				for _, x := range all {
					if strings.HasSuffix(x.Name, ".upgrade") {
						out = append(out, "disk0:"+x.Name)
					}
				}
			}
			return out
		}})
		x.tree.Define("INSTALLLOG", keyword.Kind{Label: "FILE", Suggest: func() []string { return []string{"install.log", "system-history.log"} }})
	}
	if t, ok := x.backend.(Tracer); ok {
		x.tree.Define("CAPTURE", keyword.Kind{Label: "WORD", Check: capture.CheckName, Suggest: func() []string { return captureNames(t.Captures()) }})
	}
}

// from is where probes through a named interface leave; none is named: the routing table says it.
func (x *executor) from(args keyword.Args) probe.From {
	i, ok := x.nameif(args.Text("nameif"))
	if !ok {
		return probe.From{}
	}
	f := probe.From{Device: i.Name}
	if p, err := netip.ParsePrefix(i.Address); err == nil {
		f.Address = p.Addr()
	}
	return f
}

func (x *executor) probeCommands() []entry {
	return []entry{
		{
			usage:   "ping [INTERFACE] HOST [repeat COUNT] [size BYTES] [timeout SECONDS]",
			pattern: "ping [<nameif:NAMEIF>] <host:WORD255> [repeat <repeat:1-100000>] [size <size:28-16000>] [timeout <seconds:1-3600>]",
			help:    "Ask a host whether it answers",
			live: func(ctx context.Context, _ *session, args keyword.Args, w io.Writer) error {
				to, err := probe.Resolve(ctx, args.Text("host"))
				if err != nil {
					return err
				}
				p := probe.Ping{From: x.from(args), To: to, Repeat: number(args, "repeat"), Size: number(args, "size"), Timeout: time.Duration(number(args, "seconds")) * time.Second}
				return p.Run(ctx, w)
			},
		},
		{
			usage:   "traceroute [INTERFACE] HOST [timeout SECONDS] [probe COUNT] [ttl FIRST LAST]",
			pattern: "traceroute [<nameif:NAMEIF>] <host:WORD255> [timeout <seconds:1-3600>] [probe <probes:1-65535>] [ttl <first:1-255> <last:1-255>]",
			help:    "The way to a host, by echoes that live for one hop, for two and so on",
			live: func(ctx context.Context, _ *session, args keyword.Args, w io.Writer) error {
				to, err := probe.Resolve(ctx, args.Text("host"))
				if err != nil {
					return err
				}
				t := probe.Trace{
					From: x.from(args), To: to, Probes: number(args, "probes"), Timeout: time.Duration(number(args, "seconds")) * time.Second,
					FirstHop: number(args, "first"), MaxHops: number(args, "last"),
				}
				return t.Run(ctx, w)
			},
		},
	}
}

// packetTracer are the forms of the command of that name.
func packetTracer(b Backend) []entry {
	trace := func(_ *session, args keyword.Args) (observe.View, error) {
		proto := args[3].Text // packet-tracer input NAMEIF PROTO
		src, dst := netip.MustParseAddr(args.Text("src")), netip.MustParseAddr(args.Text("dst"))
		return b.TracePacket(args.Text("nameif"), proto, netip.AddrPortFrom(src, uint16(number(args, "sport"))), netip.AddrPortFrom(dst, uint16(number(args, "dport"))))
	}
	return []entry{
		{
			usage: "packet-tracer input INTERFACE tcp|udp SOURCE PORT DESTINATION PORT", pattern: "packet-tracer input <nameif:NAMEIF> {tcp|udp} <src:A.B.C.D> <sport:1-65535> <dst:A.B.C.D> <dport:1-65535>",
			help: "What would become of a connection; nothing is sent", run: trace,
		},
		{
			usage: "packet-tracer input INTERFACE icmp SOURCE DESTINATION", pattern: "packet-tracer input <nameif:NAMEIF> icmp <src:A.B.C.D> <dst:A.B.C.D>",
			help: "What would become of a ping; nothing is sent", run: trace,
		},
	}
}

// number gives an argument that may have been left out: 0.
func number(args keyword.Args, name string) int {
	if _, ok := args.Get(name); !ok {
		return 0
	}
	return args.Int(name)
}
