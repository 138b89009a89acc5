package shell

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"
)

// restarting is a fake that notes who asked for a new start.
type restarting struct {
	clearable
	who []string
}

func (r *restarting) Restart(who string) { r.who = append(r.who, who) }

func TestReload(t *testing.T) {
	for name, c := range map[string]struct {
		lines []string
		want  string
		again bool
		saved bool
	}{
		"Return":            {[]string{"reload", ""}, "Proceed with reload? [confirm] \nThe appliance begins anew.", true, false},
		"yes":               {[]string{"reload", "yes"}, "The appliance begins anew.", true, false},
		"no":                {[]string{"reload", "no"}, "Proceed with reload? [confirm] no\nasa-a# ", false, false},
		"Ctrl-C":            {[]string{"reload", forget}, "asa-a# ", false, false},
		"changed, save":     {[]string{"conf t", "banner motd hello", "end", "reload", "y", ""}, "[OK]\nAll calls end.", true, true},
		"changed, no save":  {[]string{"conf t", "banner motd hello", "end", "reload", "n", "y"}, "System config has been modified. Save? [Y]es/[N]o/[S]ave only/[C]ancel: n\nAll calls end.", true, false},
		"changed, and save": {[]string{"conf t", "banner motd hello", "end", "reload", "", "S"}, "% Please answer y, n, s or c.\nSystem config", false, true},
		"changed, cancel":   {[]string{"conf t", "banner motd hello", "end", "reload", "c"}, "[C]ancel: c\nasa-a# ", false, false},
		"changed, Ctrl-C":   {[]string{"conf t", "banner motd hello", "end", "reload", "n", forget}, "asa-a# ", false, false},
		"without questions": {[]string{"reload noconfirm"}, "The appliance begins anew.", true, false},
	} {
		b, k := new(restarting), newKeeper(t)
		s := newExecutor(b, k, time.Now).NewSession(Caller{Name: "admin", From: "192.0.2.1"})
		has(t, byHand(s, c.lines...), c.want)
		if (len(b.who) == 1 && b.who[0] == "admin from 192.0.2.1") != c.again {
			t.Errorf("%s: asked by %q", name, b.who)
		}
		if saved, err := k.Startup(); err != nil || (len(saved.Banners) > 0) != c.saved {
			t.Errorf("%s: saved is\n%s", name, saved)
		}
	}
	b := new(restarting)
	s := newExecutor(b, newKeeper(t), time.Now).NewSession(Caller{})
	if err := s.Run(context.Background(), "reload", new(bytes.Buffer)); err == nil || len(b.who) > 0 {
		t.Errorf("without anybody to ask: %v, %q", err, b.who)
	}
	if err := s.Run(context.Background(), "reload noconfirm", new(bytes.Buffer)); !errors.Is(err, ErrExit) {
		t.Errorf("the session goes on: %v", err)
	}
}
