package shell

import (
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
}

// keywordHelp says what the words mean that several commands share.
var keywordHelp = map[string]string{
	"show":           "Show running system information",
	"clear":          "Reset functions",
	"uc-ime":         "Intercompany Media Engine proxy",
	"terminal":       "Settings of this terminal",
	"configure":      "Change the configuration",
	"configuration":  "The running configuration beside others",
	"write":          "Save the running configuration",
	"copy":           "Copy one configuration over another",
	"running-config": "The configuration that was typed",
	"startup-config": "The configuration that was saved",
	"commit":         "Confirm changes, or take them back unless they are confirmed",
	"crypto":         "Keys and certificates",
	"ca":             "Certification authorities and identities",
}

// snapshot makes a command of a getter.
func snapshot[V observe.View](get func() V) action {
	return func(*session, keyword.Args) (observe.View, error) { return get(), nil }
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
		{
			usage: "show running-config [SECTION]", pattern: "show running-config [{" + strings.Join(config.SectionNames(), "|") + "}]",
			help: "The configuration in force", run: runningConfig(b),
		},
		{usage: "show media-termination", help: "The media engine, its ports and packets", run: snapshot(b.MediaTermination)},
		{usage: "show tls-proxy", help: "TLS proxy sessions and their limit", run: snapshot(b.TLSProxy)},
		{usage: "show conn", pattern: "show conn=connection", help: "Connections through the appliance", run: snapshot(b.Conns)},
		{usage: "show crypto ca certificates", help: "Certificates of the trustpoints", run: snapshot(b.Certificates)},
		{usage: "show version", help: "Version and time since the start", run: snapshot(b.Version)},
		{
			usage: "show clock", help: "Date and time",
			run: snapshot(func() observe.Clock { return observe.Clock{Now: now()} }),
		},
		{usage: "show health", help: "What is wrong now, and what to do", run: snapshot(b.Health)},
		{
			usage: "clear conn all", pattern: "clear conn=connection all", help: "End every signaling session and its calls",
			run: func(*session, keyword.Args) (observe.View, error) {
				return observe.Cleared{Connections: b.ClearConns()}, nil
			},
		},
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

// runningConfig shows what has been typed, where that can be more than what is in force.
func runningConfig(b Backend) action {
	return func(s *session, args keyword.Args) (observe.View, error) {
		section := ""
		if len(args) > 2 { // show running-config SECTION
			section = args[2].Text
		}
		if k := s.x.keeper; k != nil {
			text := ""
			if c := k.Running(); section == "" {
				text = c.String()
			} else {
				text, _ = c.Section(section)
			}
			return observe.RunningConfig{Section: section, Config: text}, nil
		}
		text, err := b.RunningConfig(section)
		if err != nil {
			return nil, err
		}
		return observe.RunningConfig{Section: section, Config: text}, nil
	}
}
