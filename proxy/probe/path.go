package probe

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// Echoes of a size are sent so often, with so much time for an answer to each.
const (
	wholeTries = 2
	wholeWait  = 300 * time.Millisecond
	smallEcho  = 64
)

// Reaches says whether IP packets of a size in bytes, which nobody may divide, come back from a host. A host that answers no small ones says nothing
// about it: true. The error is that of the sending, or ctx's own.
func Reaches(ctx context.Context, from From, to netip.Addr, size int) (bool, error) {
	p, done, err := open(ctx, from, to, true)
	if err != nil {
		return false, err
	}
	defer done()
	if small, err := p.back(ctx, 0, smallEcho); err != nil || !small {
		return err == nil, err
	}
	return p.back(ctx, wholeTries, size)
}

// back says whether an echo of a size comes back; its numbers begin with seq.
func (p *prober) back(ctx context.Context, seq uint16, size int) (bool, error) {
	for i := range uint16(wholeTries) {
		r, err := p.echo(ctx, seq+i, size, 64, wholeWait)
		switch {
		case errors.Is(err, unix.EMSGSIZE):
			return false, nil
		case errors.Is(err, errSilent):
		case err != nil && ctx.Err() != nil:
			return false, err
		case err != nil:
			return false, unsent(p.to, err)
		case r.kind == ipv4.ICMPTypeEchoReply:
			return true, nil
		}
	}
	return false, nil
}
