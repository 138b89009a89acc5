package shell

import (
	"context"
	"io"
	"slices"
	"strconv"
	"strings"

	"imeproxy/proxy/config/keyword"
	"imeproxy/proxy/observe"
)

// machineCommands are about the whole machine, where there is one of the appliance's own.
func machineCommands(m Machine) []entry {
	ask := func(what, argument string) func(*session, keyword.Args) (observe.View, error) {
		return func(s *session, args keyword.Args) (observe.View, error) {
			value := ""
			if argument != "" {
				value = args.Text(argument)
			}
			text, err := m.Machine().Do(context.Background(), s.who, what, value)
			return lines(strings.Split(strings.TrimSuffix(text, "\n"), "\n")), err
		}
	}
	version := func(which string) func(*session, keyword.Args) (observe.View, error) {
		return func(s *session, _ keyword.Args) (observe.View, error) {
			text, err := m.Machine().Do(context.Background(), s.who, "versions", "")
			all := slices.DeleteFunc(strings.Split(text, "\n"), func(l string) bool { return !strings.HasPrefix(l, which) })
			return lines(all), err
		}
	}
	return []entry{
		{usage: "show version active", help: "The system that runs", run: version("Active")},
		{usage: "show version inactive", help: "The system in the other slot", run: version("Inactive")},
		{usage: "utils system upgrade initiate FILE", pattern: "utils system upgrade initiate <file:UPGRADE>", help: "Write the new system of a signed file of disk0: into the slot that does not run", run: ask("upgrade", "file")},
		{usage: "utils system upgrade status", help: "What became of it", run: ask("upgrade-status", "")},
		{usage: "utils system upgrade cancel", help: "End the upgrade that is being written: its slot is left empty", run: ask("upgrade-cancel", "")},
		{usage: "file list install [*]", help: "The logs of the installation and of upgrades", run: ask("logs", "")},
		{usage: "file view install FILE", pattern: "file view install <file:INSTALLLOG>", help: "What is in one of them", run: viewLog(m)},
		powerCommand(m, "utils system switch-version [noconfirm]", "Restart with the other system: all calls end", "switch-version", ""),
		powerCommand(m, "utils system restart [noconfirm]", "Restart the whole machine: all calls end", "restart", "The machine restarts.\n"),
		powerCommand(m, "utils system shutdown [noconfirm]", "Switch the machine off: all calls end", "shutdown", "The machine is switched off.\n"),
	}
}

// maxLog bounds what is shown of a log: pieces of it.
const maxLog = 256

// viewLog shows a log of the machine, which the first process gives in pieces.
func viewLog(m Machine) action {
	return func(s *session, args keyword.Args) (observe.View, error) {
		var all strings.Builder
		for piece := range maxLog {
			text, err := m.Machine().Do(context.Background(), s.who, "log", args.Text("file")+" "+strconv.Itoa(piece))
			if err != nil {
				return nil, err
			}
			if text == "" {
				break
			}
			all.WriteString(text)
		}
		var out lines
		for line := range strings.Lines(all.String()) {
			out = append(out, observe.Clean(strings.TrimSuffix(line, "\n")))
		}
		return out, nil
	}
}

// powerCommand asks before it does something, and what to do with changes that are not saved.
func powerCommand(m Machine, usage, help, what, said string) entry {
	return entry{
		usage: usage, help: help,
		live: func(ctx context.Context, s *session, args keyword.Args, w io.Writer) error {
			do := func(ctx context.Context, w io.Writer) error {
				text, err := m.Machine().Do(ctx, s.who, what, "")
				if err != nil {
					return err
				}
				_, err = io.WriteString(w, said+text)
				return err
			}
			if args.Has("noconfirm") {
				return do(ctx, w)
			}
			if !asks(ctx) {
				return &CommandError{Text: "% Nobody can be asked here: noconfirm at the end does it without questions"}
			}
			prompt := "All calls end. Proceed?"
			if s.modified() {
				prompt = "The configuration has been changed and not saved. All calls end. Proceed?"
			}
			s.yesNo(prompt, func(ctx context.Context, yes bool, w io.Writer) error {
				if !yes {
					return nil
				}
				return do(ctx, w)
			})
			return nil
		},
	}
}
