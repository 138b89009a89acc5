package shell

import (
	"context"
	"io"
	"net/netip"
	"strings"
	"time"

	"imeproxy/proxy/capture"
	"imeproxy/proxy/config/keyword"
	"imeproxy/proxy/observe"
	"imeproxy/proxy/trace"
)

// callFilter are the words by which a command can be narrowed to calls, callFilterUsage the same as `help` prints them.
const (
	callFilter      = "[call-id <callid:WORD255>] [number <number:WORD64>] [peer <peer:WORD255>]"
	callFilterUsage = "[call-id ID] [number NUMBER] [peer ADDRESS|DOMAIN]"
)

func traceFilter(args keyword.Args) trace.Filter {
	return trace.Filter{CallID: args.Text("callid"), Number: args.Text("number"), Peer: args.Text("peer")}
}

func (x *executor) debugCommands(hub *trace.Hub) []entry {
	return []entry{
		{
			usage: "debug sip " + callFilterUsage, pattern: "debug sip " + callFilter,
			help: "SIP messages on both sides as they come and go, until Ctrl-C",
			live: func(ctx context.Context, _ *session, args keyword.Args, w io.Writer) error {
				return watch(ctx, hub, trace.SIP, traceFilter(args), w)
			},
		},
		{
			usage: "debug uc-ime [ticket|signaling|media|fallback|mapping-service]", pattern: "debug uc-ime [{" + strings.Join(trace.Names(), "|") + "}]",
			help: "What the proxy decides, as it decides it, until Ctrl-C",
			live: func(ctx context.Context, _ *session, args keyword.Args, w io.Writer) error {
				part := ""
				if len(args) > 2 {
					part = args[2].Text
				}
				return watch(ctx, hub, trace.KindOf(part), trace.Filter{}, w)
			},
		},
	}
}

// watch shows events until ctx ends.
func watch(ctx context.Context, hub *trace.Hub, kinds trace.Kind, f trace.Filter, w io.Writer) error {
	sub, err := hub.Subscribe(kinds, f)
	if err != nil {
		return err
	}
	defer sub.Close()
	for {
		e, ok := sub.Next(ctx.Done())
		if !ok || ctx.Err() != nil { // what had come but was not shown yet is not waited for
			return nil
		}
		text := e.String()
		if n := sub.Lost(); n > 0 {
			text = observe.Count(n, "event") + " lost: more happens than can be shown\n" + text
		}
		if _, err := io.WriteString(w, text); err != nil {
			return err
		}
	}
}

func (x *executor) captureCommands(store *capture.Store) []entry {
	done := func(err error) (observe.View, error) { return lines{}, err }
	const size = " [size <size:1-1024>]"
	return []entry{
		{
			usage: "capture NAME sip " + callFilterUsage + " [size MEGABYTES]", pattern: "capture <name:CAPTURE> sip " + callFilter + size,
			help: "SIP messages of both sides, after TLS",
			run: func(_ *session, args keyword.Args) (observe.View, error) {
				return done(store.Start(capture.Spec{Name: args.Text("name"), SIP: traceFilter(args), Size: number(args, "size")}))
			},
		},
		{
			usage: "capture NAME interface INTERFACE [host ADDRESS] [port PORT] [size MEGABYTES]", pattern: "capture <name:CAPTURE> interface <nameif:NAMEIF> [host <host:A.B.C.D>] [port <port:1-65535>]" + size,
			help: "Packets of an interface",
			run: func(_ *session, args keyword.Args) (observe.View, error) {
				spec := capture.Spec{Name: args.Text("name"), Nameif: args.Text("nameif"), Device: x.from(args).Device, Port: uint16(number(args, "port")), Size: number(args, "size")}
				if h := args.Text("host"); h != "" {
					spec.Host = netip.MustParseAddr(h)
				}
				return done(store.Start(spec))
			},
		},
		{
			usage: "capture NAME tls-keys MINUTES", pattern: "capture <name:CAPTURE> tls-keys <minutes:1-60>",
			help: "Write the keys of new TLS sessions into a capture too: whoever has the file can read them",
			run: func(s *session, args keyword.Args) (observe.View, error) {
				d := time.Duration(args.Int("minutes")) * time.Minute
				if err := store.Keys(args.Text("name"), s.who, d); err != nil {
					return nil, err
				}
				return lines{"WARNING: whoever has the file can read the TLS sessions that begin in the next " + d.String() + ". The log says so too."}, nil
			},
		},
		{
			usage: "capture NAME stop", pattern: "capture <name:CAPTURE> stop", help: "End a capture and keep its file",
			run: func(_ *session, args keyword.Args) (observe.View, error) { return done(store.Stop(args.Text("name"))) },
		},
		{usage: "show capture", help: "Captures", run: snapshot(store.List)},
		{
			usage: "show capture NAME", pattern: "show capture <name:CAPTURE>", help: "Packets of a capture in short",
			run: func(_ *session, args keyword.Args) (observe.View, error) { return store.Show(args.Text("name")) },
		},
		{
			usage: "no capture NAME", pattern: "no capture <name:CAPTURE>", help: "End a capture and remove its file",
			run: func(_ *session, args keyword.Args) (observe.View, error) {
				return done(store.Remove(args.Text("name")))
			},
		},
	}
}

// captureNames are those that exist, for Tab.
func captureNames(store *capture.Store) []string {
	var out []string
	for _, c := range store.List().Captures {
		out = append(out, c.Name)
	}
	return out
}
