package main

import (
	"fmt"
	"slices"
	"time"

	"github.com/beevik/ntp"
	"golang.org/x/sys/unix"
)

const (
	ntpTimeout = 3 * time.Second
	// stepAt is the difference from which on the clock is set; less is made up for slowly, so that no time comes twice.
	stepAt = 128 * time.Millisecond
	// A server far from a clock of its own is none, says the guide: strata 1 to 9.
	worstStratum = 9
	// The first answers are wanted soon; then the clock needs little.
	askSoon, askLater = 16 * time.Second, 1024 * time.Second
)

// keepTime keeps the clock by the time servers of the settings, which may come later. The median of their answers counts: one that
// is wrong among three changes nothing.
func (m *machine) keepTime() {
	wait := time.Duration(0)
	told := false
	for ; ; time.Sleep(wait) {
		wait = askSoon
		s := m.settings.Load()
		if s == nil || len(s.NTP) == 0 {
			continue
		}
		var offsets []time.Duration
		for _, server := range s.NTP {
			r, err := ntp.QueryWithOptions(server, ntp.QueryOptions{Timeout: ntpTimeout})
			if err == nil {
				err = r.Validate()
			}
			if err != nil {
				m.log.line("clock", server+": "+err.Error())
			} else if r.Stratum > worstStratum {
				m.log.line("clock", fmt.Sprintf("%s: stratum %d, must be 1 to %d", server, r.Stratum, worstStratum))
			} else {
				offsets = append(offsets, r.ClockOffset)
			}
		}
		if len(offsets) == 0 {
			if !told {
				m.say("no time server answers that is near enough to a clock (strata 1 to %d): %v", worstStratum, s.NTP)
			}
			told = true
			continue
		}
		told = false
		if err := m.correct(median(offsets)); err != nil {
			m.say("the clock cannot be set: %v", err)
			continue
		}
		wait = askLater
	}
}

// median is the middle one; of an even number the mean of both in the middle.
func median(all []time.Duration) time.Duration {
	slices.Sort(all)
	n := len(all)
	return all[(n-1)/2] + (all[n/2]-all[(n-1)/2])/2
}

// correct makes the clock right, and lets the kernel keep the machine's own clock by it.
func (m *machine) correct(by time.Duration) error {
	if by.Abs() >= stepAt {
		m.say("the clock is set by %v", by.Round(time.Millisecond))
		now := unix.NsecToTimeval(time.Now().Add(by).UnixNano())
		if err := unix.Settimeofday(&now); err != nil {
			return err
		}
	} else {
		slow := unix.Timex{Modes: unix.ADJ_OFFSET_SINGLESHOT, Offset: by.Microseconds()}
		if _, err := unix.Adjtimex(&slow); err != nil {
			return err
		}
	}
	synchronized := unix.Timex{Modes: unix.ADJ_STATUS | unix.ADJ_MAXERROR | unix.ADJ_ESTERROR}
	_, err := unix.Adjtimex(&synchronized)
	return err
}
