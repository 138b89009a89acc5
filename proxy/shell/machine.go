package shell

import (
	"context"
	"io"

	"imeproxy/proxy/config/keyword"
)

// powerCommands end the whole machine, where there is one of the appliance's own.
func powerCommands(m Machine) []entry {
	return []entry{
		powerCommand(m, "utils system restart [noconfirm]", "Restart the whole machine: all calls end", "restart", "The machine restarts.\n"),
		powerCommand(m, "utils system shutdown [noconfirm]", "Switch the machine off: all calls end", "shutdown", "The machine is switched off.\n"),
	}
}

// powerCommand asks before it does something, and what to do with changes that are not saved.
func powerCommand(m Machine, usage, help, what, said string) entry {
	return entry{
		usage: usage, help: help,
		live: func(ctx context.Context, s *session, args keyword.Args, w io.Writer) error {
			do := func(ctx context.Context, w io.Writer) error {
				if _, err := m.Machine().Do(ctx, s.who, what, ""); err != nil {
					return err
				}
				_, err := io.WriteString(w, said)
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
