package shell

import (
	"context"
	"io"
	"strings"

	"imeproxy/proxy/config"
	"imeproxy/proxy/config/keyword"
)

// reloadCommand lets the daemon begin anew.
func reloadCommand(r Restarter) entry {
	return entry{
		usage: "reload [noconfirm]", help: "Begin anew with the saved configuration: all calls end",
		live: func(ctx context.Context, s *session, args keyword.Args, w io.Writer) error {
			restart := func(w io.Writer) error {
				if _, err := io.WriteString(w, "The appliance begins anew.\n"); err != nil {
					return err
				}
				r.Restart(s.who)
				return ErrExit
			}
			if args.Has("noconfirm") {
				return restart(w)
			}
			if !asks(ctx) {
				return &CommandError{Text: "% Nobody can be asked here: reload noconfirm does it without questions"}
			}
			proceed := func() {
				s.confirm("All calls end. Proceed with reload?", func(_ context.Context, w io.Writer) error { return restart(w) })
			}
			if s.modified() {
				s.askSave(proceed)
			} else {
				proceed()
			}
			return nil
		},
	}
}

// askSave asks what to do with changes that are not saved, in an ASA's words, and goes on unless that is cancelled.
func (s *session) askSave(proceed func()) {
	q := &ask{prompt: "System config has been modified. Save? [Y]es/[N]o/[S]ave only/[C]ancel: "}
	q.answer = func(_ context.Context, line string, w io.Writer) error {
		answer := strings.ToLower(strings.TrimSpace(line))
		switch answer {
		case "y", "yes", "s", "save", "save only":
			v, err := s.save()
			if err != nil {
				return err
			}
			if _, err := io.WriteString(w, v.Text()); err != nil {
				return err
			}
		case "n", "no":
		case "c", "cancel", "quit", "exit":
			return nil
		default:
			s.ask = q
			_, err := io.WriteString(w, "% Please answer y, n, s or c.\n")
			return err
		}
		if answer[0] != 's' {
			proceed()
		}
		return nil
	}
	s.ask = q
}

// modified says whether the running configuration is another than the saved one.
func (s *session) modified() bool {
	k := s.x.keeper
	if k == nil {
		return false
	}
	saved, err := k.Startup()
	return err != nil || len(config.Difference(saved, k.Running())) > 0
}
