package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"imeproxy/proxy/shell"
)

// supervisor is systemd where it has started the daemon (sd_notify(3)), and nobody elsewhere: nothing is told then.
type supervisor struct{ log *slog.Logger }

func (s supervisor) tell(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		s.log.Warn("systemd cannot be told the daemon's state", "err", err)
	}
}

// ready says that the daemon serves, for the first time or again.
func (s supervisor) ready() { s.tell(daemon.SdNotifyReady) }

// reloading says that the configuration is being read; ready must follow.
func (s supervisor) reloading() { s.tell(daemon.SdNotifyReloading) }

// stopping says that the daemon ends, and may take as long as its calls have got and its last BYEs need.
func (s supervisor) stopping(drain time.Duration) {
	s.tell(fmt.Sprintf("%s\nEXTEND_TIMEOUT_USEC=%d", daemon.SdNotifyStopping, (drain + stopTime).Microseconds()))
}

// stopTime is what ending takes at most when no call has to be waited for, with a reserve for a slow machine.
const stopTime = 20 * time.Second

// signOfLife tells systemd's watchdog, where the unit sets one, that the daemon still greets who opens a shell: three times within the time
// that it allows. It returns when ctx ends.
func (s supervisor) signOfLife(ctx context.Context, control string) {
	limit, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		s.log.Warn("systemd's watchdog is left without a sign of life", "err", err)
	}
	if err != nil || limit == 0 {
		return
	}
	tick := time.NewTicker(limit / 3)
	defer tick.Stop()
	for {
		if greets(ctx, control, limit/3) {
			s.tell(daemon.SdNotifyWatchdog)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// greets reports whether a shell opens within the limit, or is refused in so many words: that all shells are in use is no reason to end calls.
func greets(ctx context.Context, control string, limit time.Duration) bool {
	ctx, stop := context.WithTimeout(ctx, limit)
	defer stop()
	c, err := shell.Dial(ctx, control)
	if err != nil {
		var refused *shell.RefusedError
		return errors.As(err, &refused)
	}
	_, err = c.Run(ctx, "", io.Discard)
	_ = c.Close()
	return err == nil
}
