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
		"yes":               {[]string{"reload", "yes"}, "Proceed with reload? [yes/no]: yes\nThe appliance begins anew.", true, false},
		"no":                {[]string{"reload", "no"}, "asa-a# ", false, false},
		"changed, save":     {[]string{"conf t", "banner motd hello", "end", "reload", "yes", "yes"}, "[OK]\nAll calls end.", true, true},
		"changed, no save":  {[]string{"conf t", "banner motd hello", "end", "reload", "no", "yes"}, "Save? [yes/no]: no", true, false},
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
