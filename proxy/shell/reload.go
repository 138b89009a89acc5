package shell

import (
	"context"
	"io"

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
				s.yesNo("All calls end. Proceed with reload?", func(_ context.Context, yes bool, w io.Writer) error {
					if !yes {
						return nil
					}
					return restart(w)
				})
			}
			if !s.modified() {
				proceed()
				return nil
			}
			s.yesNo("System configuration has been modified. Save?", func(_ context.Context, yes bool, w io.Writer) error {
				if yes {
					v, err := s.save()
					if err != nil {
						return err
					}
					if _, err := io.WriteString(w, v.Text()); err != nil {
						return err
					}
				}
				proceed()
				return nil
			})
			return nil
		},
	}
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
