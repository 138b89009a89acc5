package shell

import (
	"errors"
	"strings"
	"time"

	"imeproxy/proxy/config"
	"imeproxy/proxy/config/keyword"
	"imeproxy/proxy/observe"
)

// action carries one matched line of a session out.
type action func(s *session, args keyword.Args) (observe.View, error)

// entry is one command of the table.
type entry struct {
	usage   string // as `help` and docs/show.md print it
	pattern string // of the keyword trie; "" = usage
	help    string
	run     action
	live    stream // in run's place
}

// keywordHelp says what the words mean that several commands share.
var keywordHelp = map[string]string{
	"show":           "Show running system information",
	"clear":          "Reset functions",
	"uc-ime":         "Intercompany Media Engine proxy",
	"test":           "Look what would happen",
	"terminal":       "Settings of this terminal",
	"configure":      "Change the configuration",
	"configuration":  "The running configuration beside others",
	"write":          "Save the running configuration",
	"copy":           "Copy one configuration over another",
	"running-config": "The configuration that was typed",
	"startup-config": "The configuration that was saved",
	"commit":         "Confirm changes, or take them back unless they are confirmed",
	"debug":          "Show what happens, until Ctrl-C",
	"capture":        "Write what is on the wire into a file",
	"no":             "Remove",
	"dir":            "Files of disk0:",
	"crypto":         "Keys and certificates",
	"ca":             "Certification authorities and identities",
	"ime":            "The peer server",
	"perf":           "Counters of the peer server",
	"utils":          "What is done by hand",
	"file":           "Logs of the installation and of upgrades",
	"system":         "The whole machine, and its two systems",
	"upgrade":        "The system in the other slot",
	"set":            "Change a setting of the peer server",
	"add":            "Add something to the peer server",
}

// snapshot makes a command of a getter.
func snapshot[V observe.View](get func() V) action {
	return func(*session, keyword.Args) (observe.View, error) { return get(), nil }
}

// attempt makes a command of a getter that can fail.
func attempt[V observe.View](get func() (V, error)) action {
	return func(*session, keyword.Args) (observe.View, error) {
		v, err := get()
		if err != nil {
			return nil, err
		}
		return v, nil
	}
}

func commands(b Backend, now func() time.Time) []entry {
	list := []entry{
		{
			usage: "show uc-ime signaling-sessions", help: "Signaling sessions and their dialogs",
			run: snapshot(b.SignalingSessions),
		},
		{
			usage: "show uc-ime signaling-sessions statistics", help: "Counters of ticket checks, refused messages and sessions",
			run: snapshot(b.Statistics),
		},
		{
			usage: "show uc-ime media-sessions", help: "Media sessions in short",
			run: snapshot(b.MediaSessions),
		},
		{
			usage: "show uc-ime media-sessions detail", help: "Media sessions with packets, keys and monitoring",
			run: snapshot(func() observe.MediaSessionsDetail {
				return observe.MediaSessionsDetail{MediaSessions: b.MediaSessions()}
			}),
		},
		{
			usage: "show uc-ime mapping-service-sessions", help: "Connections of call agents to the off-path mapping service",
			run: snapshot(b.MappingSessions),
		},
		{
			usage: "show uc-ime mapping-service-sessions statistics", help: "Requests and answers of the mapping service, and its mappings",
			run: snapshot(func() observe.MappingStatistics {
				return observe.MappingStatistics{MappingSessions: b.MappingSessions()}
			}),
		},
		{
			usage: "show uc-ime fallback-notification statistics", help: "Calls whose quality is watched, and notifications to fall back to the PSTN",
			run: snapshot(b.FallbackStatistics),
		},
		{usage: "show uc-ime quality", help: "The calls that sound worst now", run: snapshot(b.Quality)},
		{
			usage: "show running-config [SECTION]", pattern: "show running-config [{" + strings.Join(config.SectionNames(), "|") + "}]",
			help: "The configuration in force", run: runningConfig(b),
		},
		{usage: "show running-config all", help: "The same with what nobody has set, at its defaults", run: runningConfig(b)},
		{usage: "show media-termination", help: "The media engine, its ports and packets", run: snapshot(b.MediaTermination)},
		{usage: "show tls-proxy", help: "TLS proxy sessions and their limit", run: snapshot(b.TLSProxy)},
		{usage: "show tls-proxy session", help: "TLS proxy sessions one by one", run: snapshot(b.TLSSessions)},
		{usage: "show sip", help: "What stands between two ends: calls, and what only asks", run: snapshot(b.SIPCalls)},
		{usage: "show xlate", help: "Address translations, static ones and those of connections", run: attempt(b.Xlates)},
		{
			usage: "show access-list [NAME]", pattern: "show access-list [<name:ACL>]", help: "Access lists, and how many connections each entry has decided on",
			run: func(_ *session, args keyword.Args) (observe.View, error) { return b.AccessLists(args.Text("name")) },
		},
		{usage: "show service-policy", help: "Classes that the proxy inspects, and their connections", run: attempt(b.ServicePolicies)},
		{usage: "show conn", pattern: "show conn=connection", help: "Connections through the appliance", run: snapshot(b.Conns)},
		{usage: "show crypto ca certificates", help: "Certificates of the trustpoints", run: snapshot(b.Certificates)},
		{usage: "show version", help: "Version and time since the start", run: snapshot(b.Version)},
		{
			usage: "show clock", help: "Date and time",
			run: snapshot(func() observe.Clock { return observe.Clock{Now: now()} }),
		},
		{usage: "show interface", help: "Interfaces as the kernel has them, and their packets", run: snapshot(b.Interfaces)},
		{usage: "show route", help: "The kernel's main routing table", run: attempt(b.Routes)},
		{usage: "show arp", help: "Hosts on the links that answered", run: attempt(b.Neighbors)},
		{usage: "show cpu", help: "What the daemon uses", run: snapshot(b.Resources)},
		{usage: "show memory", help: "What the daemon uses", run: snapshot(b.Resources)},
		{usage: "show logging", help: "The last lines of the log", run: snapshot(b.Logging)},
		{usage: "show metrics", help: "All counters, as Prometheus reads them", run: attempt(b.Metrics)},
		{usage: "show health", help: "What is wrong now, and what to do", run: snapshot(b.Health)},
		{
			usage: "clear conn [all]", pattern: "clear conn=connection [all]", help: "End every signaling session and its calls",
			run: func(*session, keyword.Args) (observe.View, error) {
				return observe.Cleared{Connections: b.ClearConns()}, nil
			},
		},
	}
	if p, ok := b.(PeerServer); ok {
		list = append(list, imeShow(p)...)
	}
	list = append(list, packetTracer(b)...)
	list = append(list, entry{usage: "show tech-support", help: "All of the above at once, for whoever helps", run: techSupport(list)})
	if c, ok := b.(TicketTester); ok {
		list = append(list, entry{
			usage:   "test uc-ime ticket HEADER [called NUMBER] [peer DOMAIN]",
			pattern: "test uc-ime ticket <header:WORD> [called <number:WORD>] [peer <domain:WORD>]",
			help:    "Which check a ticket fails, and why",
			run: func(_ *session, args keyword.Args) (observe.View, error) {
				return c.TestTicket(args.Text("header"), args.Text("number"), args.Text("domain"))
			},
		})
	}
	if c, ok := b.(Requester); ok {
		list = append(list, entry{
			usage: "show crypto ca request TRUSTPOINT", pattern: "show crypto ca request <trustpoint:TRUSTPOINT>", help: "The certificate request that an authority signs",
			run: func(_ *session, args keyword.Args) (observe.View, error) {
				text, err := c.CertificateRequest(args.Text("trustpoint"))
				if err != nil {
					return nil, err
				}
				return told(text), nil
			},
		})
	}
	if c, ok := b.(StatisticsClearer); ok {
		list = append(list, entry{
			usage: "clear uc-ime statistics", help: "Set the counters to zero",
			run: func(*session, keyword.Args) (observe.View, error) {
				c.ClearStatistics()
				return observe.Done{}, nil
			},
		})
	}
	return list
}

// support is the answer to `show tech-support`.
type support struct {
	Answers []supported `json:"answers"`
}

type supported struct {
	Command string       `json:"command"`
	Answer  observe.View `json:"answer"`
	Error   string       `json:"error,omitempty"`
}

// Text gives each answer behind its command.
func (s support) Text() string {
	var b strings.Builder
	for _, a := range s.Answers {
		b.WriteString("------------------ " + a.Command + " ------------------\n\n")
		if a.Answer != nil {
			b.WriteString(a.Answer.Text())
		}
		if a.Error != "" {
			b.WriteString("ERROR: " + observe.Clean(a.Error) + "\n")
		}
		b.WriteString("\n")
	}
	return b.String()
}

// techSupport gives every show command of a list in its turn; one that fails does not keep the others from being seen.
func techSupport(list []entry) action {
	return func(s *session, _ keyword.Args) (observe.View, error) {
		var out support
		for _, c := range list {
			if !strings.HasPrefix(c.usage, "show ") {
				continue
			}
			v, err := c.run(s, nil)
			if errors.Is(err, observe.ErrNoPeerServer) {
				continue // most appliances have none
			}
			a := supported{Command: strings.TrimSpace(strings.SplitN(c.usage, "[", 2)[0]), Answer: v}
			if err != nil {
				a.Answer, a.Error = nil, err.Error()
			}
			out.Answers = append(out.Answers, a)
		}
		return out, nil
	}
}

// runningConfig shows what has been typed, where that can be more than what is in force.
func runningConfig(b Backend) action {
	return func(s *session, args keyword.Args) (observe.View, error) {
		section := ""
		if len(args) > 2 { // show running-config SECTION
			section = args[2].Text
		}
		if k := s.x.keeper; k != nil {
			text := ""
			if c := k.Running(); section == "all" {
				text, section = c.All(), ""
			} else if section == "" {
				text = c.String()
			} else {
				text, _ = c.Section(section)
			}
			return observe.RunningConfig{Section: section, Config: text}, nil
		}
		if section == "all" { // what cannot be changed has nobody to ask for its defaults
			section = ""
		}
		text, err := b.RunningConfig(section)
		if err != nil {
			return nil, err
		}
		return observe.RunningConfig{Section: section, Config: text}, nil
	}
}
