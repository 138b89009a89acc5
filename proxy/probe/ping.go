package probe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// Ping is one `ping`.
type Ping struct {
	From    From
	To      netip.Addr
	Repeat  int           // echoes; 0 = 5
	Size    int           // bytes of an IP packet, MinSize to MaxSize; 0 = 100
	Timeout time.Duration // for one answer; 0 = 2 s
}

// Run sends the echoes one after the other, the next when the answer has come: `!` for an answer, `?` for silence, `U` for unreachable. It ends with the
// share of the answers, also when ctx ends it.
func (g Ping) Run(ctx context.Context, w io.Writer) error {
	g.Repeat, g.Size, g.Timeout = or(g.Repeat, 5), or(g.Size, 100), or(g.Timeout, 2*time.Second)
	p, done, err := open(ctx, g.From, g.To, false)
	if err != nil {
		return err
	}
	defer done()
	if _, err := fmt.Fprintf(w, "Type escape sequence to abort.\nSending %d, %d-byte ICMP Echos to %s, timeout is %d seconds:\n", g.Repeat, g.Size, g.To, int(g.Timeout.Seconds())); err != nil {
		return err
	}
	var sent, got int
	var least, most, sum time.Duration
	for ; sent < g.Repeat && ctx.Err() == nil; sent++ {
		if sent > 0 && sent%70 == 0 {
			if _, err := io.WriteString(w, "\n"); err != nil {
				return err
			}
		}
		r, err := p.echo(ctx, uint16(sent), g.Size, 64, g.Timeout)
		mark := "!"
		switch {
		case errors.Is(err, errSilent):
			mark = "?"
		case err != nil && ctx.Err() != nil:
			mark = ""
		case err != nil:
			return unsent(g.To, err)
		case r.kind != ipv4.ICMPTypeEchoReply:
			mark = "U"
		default:
			if got == 0 || r.took < least {
				least = r.took
			}
			got, sum, most = got+1, sum+r.took, max(most, r.took)
		}
		if _, err := io.WriteString(w, mark); err != nil {
			return err
		}
		if mark == "" {
			break
		}
	}
	text := fmt.Sprintf("\nSuccess rate is %d percent (%d/%d)", got*100/max(1, sent), got, sent)
	if got > 0 {
		text += fmt.Sprintf(", round-trip min/avg/max = %s/%s/%s ms", ms(least), ms(sum/time.Duration(got)), ms(most))
	}
	_, err = io.WriteString(w, text+"\n")
	return err
}

// unsent says why an echo could not be sent.
func unsent(to netip.Addr, err error) error {
	if errors.Is(err, unix.ENETUNREACH) {
		return fmt.Errorf("no route to %s: see show route", to)
	}
	return fmt.Errorf("echo to %s: %w", to, err)
}

// ms is a time in milliseconds, with as much behind the point as a fast link needs.
func ms(d time.Duration) string {
	if d >= 10*time.Millisecond {
		return fmt.Sprintf("%.0f", d.Seconds()*1e3)
	}
	return fmt.Sprintf("%.1f", d.Seconds()*1e3)
}

func or[T comparable](v, preset T) T {
	var zero T
	if v == zero {
		return preset
	}
	return v
}

// Trace is one `traceroute`.
type Trace struct {
	From     From
	To       netip.Addr
	Probes   int           // to each hop; 0 = 3
	Timeout  time.Duration // for one answer; 0 = 3 s
	MaxHops  int           // 0 = 30
	FirstHop int           // 0 = 1
}

// Run sends echoes that live for one hop, for two and so on, until the host itself answers, it is unreachable, or ctx ends: a line a hop.
func (t Trace) Run(ctx context.Context, w io.Writer) error {
	t.Probes, t.Timeout, t.MaxHops, t.FirstHop = or(t.Probes, 3), or(t.Timeout, 3*time.Second), or(t.MaxHops, 30), or(t.FirstHop, 1)
	p, done, err := open(ctx, t.From, t.To, false)
	if err != nil {
		return err
	}
	defer done()
	if _, err := fmt.Fprintf(w, "Type escape sequence to abort.\nTracing the route to %s\n\n", t.To); err != nil {
		return err
	}
	seq := uint16(0)
	for hop := t.FirstHop; hop <= t.MaxHops; hop++ {
		if _, err := fmt.Fprintf(w, "%2d ", hop); err != nil {
			return err
		}
		end := false
		last := netip.Addr{}
		for range t.Probes {
			r, err := p.echo(ctx, seq, headers+32, hop, t.Timeout)
			seq++
			text := " *"
			switch {
			case errors.Is(err, errSilent):
			case err != nil && ctx.Err() != nil:
				_, err := io.WriteString(w, "\n")
				return err
			case err != nil:
				return unsent(t.To, err)
			default:
				text = ""
				if r.from != last {
					text, last = " "+r.from.String(), r.from
				}
				text += " " + ms(r.took) + " msec" + unreachable(r)
				end = end || r.kind != ipv4.ICMPTypeTimeExceeded
			}
			if _, err := io.WriteString(w, text); err != nil {
				return err
			}
		}
		if _, err := io.WriteString(w, "\n"); err != nil || end {
			return err
		}
	}
	return nil
}

// unreachable marks an answer as an ASA does.
func unreachable(r reply) string {
	if r.kind != ipv4.ICMPTypeDestinationUnreachable {
		return ""
	}
	switch r.code {
	case 0:
		return " !N"
	case 1:
		return " !H"
	case 2:
		return " !P"
	case 9, 10, 13:
		return " !A"
	}
	return " !?"
}
