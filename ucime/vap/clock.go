package vap

import "time"

// Clock is where a server or client takes its time from; nil fields mean the machine's.
type Clock struct {
	Now   func() time.Time
	After func(d time.Duration, f func()) (stop func() bool) // as time.AfterFunc and its Stop
}

func (c Clock) orReal() Clock {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.After == nil {
		c.After = func(d time.Duration, f func()) func() bool { return time.AfterFunc(d, f).Stop }
	}
	return c
}
