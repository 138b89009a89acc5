package netcheck

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/beevik/ntp"
)

// worstStratum is the guide's: a server farther from a clock of its own is none.
const worstStratum = 9

// servers asks name and time servers, all at once.
func (c *check) servers(ctx context.Context) {
	var wg sync.WaitGroup
	answering := make([]bool, len(c.plan.DNS))
	known := make([][]netip.Addr, len(c.plan.DNS))
	for i, server := range c.plan.DNS {
		wg.Go(func() {
			found, err := lookup(ctx, server, c.plan.Name)
			if err != nil {
				c.problem(DNS, "the name server %s does not answer: %v", server, err)
				return
			}
			answering[i], known[i] = true, found
		})
	}
	wg.Wait()
	best := slices.Index(answering, true)
	if best >= 0 {
		c.registered(ctx, c.plan.DNS[best], known[best])
	}
	for _, server := range c.plan.NTP {
		wg.Go(func() {
			if err := c.timeOf(ctx, server, best); err != nil {
				c.problem(Time, "the time server %s: %v", server, err)
			}
		})
	}
	wg.Wait()
}

// resolver asks one server alone.
func resolver(server netip.Addr) *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, netip.AddrPortFrom(server, 53).String())
	}}
}

// lookup gives the addresses of a name, none for one that the server does not know. An error is a server that does not answer.
func lookup(ctx context.Context, server netip.Addr, name string) ([]netip.Addr, error) {
	ctx, cancel := context.WithTimeout(ctx, AnswerTime)
	defer cancel()
	found, err := resolver(server).LookupNetIP(ctx, "ip4", name+".")
	var e *net.DNSError
	switch {
	case errors.As(err, &e) && e.IsNotFound:
		return nil, nil
	case errors.As(err, &e) && e.IsTimeout:
		return nil, fmt.Errorf("no answer within %v", AnswerTime)
	case err != nil:
		return nil, short(err)
	}
	for i := range found {
		found[i] = found[i].Unmap()
	}
	return found, nil
}

// short gives what stands last in an error of a socket: ports that are others each time make one problem look like many.
func short(err error) error {
	text := err.Error()
	var e *net.DNSError
	if errors.As(err, &e) {
		text = e.Err
	}
	return errors.New(text[strings.LastIndex(": "+text, ": "):])
}

// registered says whether the machine is in the DNS, by its name and by its address.
func (c *check) registered(ctx context.Context, server netip.Addr, found []netip.Addr) {
	if len(found) == 0 {
		c.problem(Name, "%s is not in the DNS of %s", c.plan.Name, server)
	}
	var own netip.Addr
	for _, a := range found {
		if slices.ContainsFunc(c.plan.Cards, func(card Card) bool { return card.Address.Addr() == a }) {
			own = a
		}
	}
	if len(found) > 0 && !own.IsValid() {
		c.problem(Name, "%s is %s in the DNS of %s, and no address of this machine", c.plan.Name, found[0], server)
	}
	if !own.IsValid() {
		if len(c.plan.Cards) == 0 {
			return
		}
		own = c.plan.Cards[0].Address.Addr()
	}
	ctx, cancel := context.WithTimeout(ctx, AnswerTime)
	defer cancel()
	names, err := resolver(server).LookupAddr(ctx, own.String())
	switch {
	case err != nil || len(names) == 0:
		c.problem(Name, "%s has no name in the DNS of %s", own, server)
	case !slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(strings.TrimSuffix(n, "."), c.plan.Name) }):
		c.problem(Name, "%s is %.80q in the DNS of %s, and not %s", own, strings.TrimSuffix(names[0], "."), server, c.plan.Name)
	}
}

// timeOf asks a time server; dns is the name server that its name is asked of, -1 for none.
func (c *check) timeOf(ctx context.Context, server string, dns int) error {
	address, err := netip.ParseAddr(server)
	if err != nil {
		if dns < 0 {
			return errors.New("no name server gives its address")
		}
		found, err := lookup(ctx, c.plan.DNS[dns], server)
		if err != nil || len(found) == 0 {
			return fmt.Errorf("its name is not in the DNS of %s", c.plan.DNS[dns])
		}
		address = found[0]
	}
	r, err := ntp.QueryWithOptions(address.String(), ntp.QueryOptions{Timeout: AnswerTime})
	var late net.Error
	if errors.As(err, &late) && late.Timeout() {
		return fmt.Errorf("no answer within %v", AnswerTime)
	}
	if err != nil {
		return short(err)
	}
	if err := r.Validate(); err != nil {
		return err
	}
	if r.Stratum > worstStratum {
		return fmt.Errorf("it is of stratum %d, %d is the worst that will do", r.Stratum, worstStratum)
	}
	return ctx.Err()
}
