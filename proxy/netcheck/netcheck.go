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
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"imeproxy/proxy/probe"
)

// How long is waited.
const (
	LinkTime   = 3 * time.Second // for a card's link
	AnswerTime = 3 * time.Second // for a name or time server
)

// Card is a network card as it is to be.
type Card struct {
	Device  string
	Address netip.Prefix
	MTU     int // bytes; 0: as it is
}

// Plan is what is tried. What is empty is not.
type Plan struct {
	Name    string // with its domain
	Cards   []Card
	Gateway netip.Addr
	DNS     []netip.Addr
	NTP     []string
}

// Kind is what a problem is about.
type Kind string

// The kinds.
const (
	Link      Kind = "link"
	Duplicate Kind = "duplicate address"
	Gateway   Kind = "gateway"
	MTU       Kind = "MTU"
	DNS       Kind = "name server"
	Name      Kind = "name"
	Time      Kind = "time server"
)

// Problem is something that does not work, in words for an operator.
type Problem struct {
	Kind Kind
	Text string
}

// Run tries a plan and takes back what it has set. The error says why nothing could be tried.
func Run(ctx context.Context, p Plan) (found []Problem, err error) {
	c := &check{plan: p}
	defer func() {
		for i := len(c.undo) - 1; i >= 0; i-- {
			err = errors.Join(err, c.undo[i]())
		}
	}()
	up := c.setUp(ctx)
	c.addresses(ctx, up)
	if p.Gateway.IsValid() {
		if err := c.gateway(ctx, up); err != nil {
			return c.found, err
		}
	}
	c.servers(ctx)
	return c.found, ctx.Err()
}

// check is one run.
type check struct {
	plan Plan
	undo []func() error

	mu    sync.Mutex
	found []Problem // guarded by mu
}

func (c *check) problem(k Kind, format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.found = append(c.found, Problem{k, fmt.Sprintf(format, args...)})
}

// at is a card whose link is up.
type at struct {
	Card
	link netlink.Link
	free bool // nobody else has its address
}

// setUp sets the cards up and waits for their links.
func (c *check) setUp(ctx context.Context) (up []*at) {
	end := time.Now().Add(LinkTime)
	for _, card := range c.plan.Cards {
		var link netlink.Link
		if !until(ctx, end, func() bool { // a driver may still look for its card
			var err error
			link, err = netlink.LinkByName(card.Device)
			return err == nil
		}) {
			c.problem(Link, "this machine has no card %s: it has %s", card.Device, cards())
			continue
		}
		before := link.Attrs()
		if before.Flags&net.FlagUp == 0 {
			c.undo = append(c.undo, func() error { return netlink.LinkSetDown(link) })
		}
		if card.MTU != 0 && card.MTU != before.MTU {
			if err := netlink.LinkSetMTU(link, card.MTU); err != nil {
				c.problem(MTU, "card %s takes no MTU of %d bytes: %v", card.Device, card.MTU, err)
				continue
			}
			c.undo = append(c.undo, func() error { return netlink.LinkSetMTU(link, before.MTU) })
		}
		if err := netlink.LinkSetUp(link); err != nil {
			c.problem(Link, "card %s cannot be set up: %v", card.Device, err)
			continue
		}
		up = append(up, &at{Card: card, link: link})
	}
	var out []*at
	for _, card := range up {
		if until(ctx, end, func() bool { return carrier(card.link) }) {
			out = append(out, card)
		} else {
			c.problem(Link, "card %s has no link: is it connected?", card.Device)
		}
	}
	return out
}

// until waits until something is so, up to a time.
func until(ctx context.Context, end time.Time, so func() bool) bool {
	for !so() {
		if ctx.Err() != nil || time.Now().After(end) {
			return false
		}
		time.Sleep(20 * time.Millisecond) // cards and links come by themselves, within a second or two
	}
	return true
}

// cards names those that there are.
func cards() string {
	var names []string
	all, _ := netlink.LinkList()
	for _, l := range all {
		if l.Attrs().Flags&net.FlagLoopback == 0 {
			names = append(names, l.Attrs().Name)
		}
	}
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// carrier says whether a link stands.
func carrier(link netlink.Link) bool {
	now, err := netlink.LinkByIndex(link.Attrs().Index)
	return err == nil && now.Attrs().RawFlags&unix.IFF_LOWER_UP != 0
}

// addresses asks on each link whether somebody has the address already, and sets it when nobody has.
func (c *check) addresses(ctx context.Context, up []*at) {
	var wg sync.WaitGroup
	for _, card := range up {
		wg.Go(func() {
			owner, err := probeAddress(ctx, card.link.Attrs(), card.Address.Addr())
			switch {
			case err != nil:
				c.problem(Duplicate, "whether anybody has %s on %s cannot be found out: %v", card.Address.Addr(), card.Device, err)
			case owner != nil:
				c.problem(Duplicate, "%s on %s belongs to another host, %s", card.Address.Addr(), card.Device, owner)
				return
			}
			card.free = true
		})
	}
	wg.Wait()
	for _, card := range up {
		if !card.free {
			continue
		}
		address := &netlink.Addr{IPNet: &net.IPNet{IP: card.Address.Addr().AsSlice(), Mask: net.CIDRMask(card.Address.Bits(), 32)}}
		switch err := netlink.AddrAdd(card.link, address); {
		case err == nil:
			c.undo = append(c.undo, func() error { return netlink.AddrDel(card.link, address) })
		case !errors.Is(err, unix.EEXIST):
			c.problem(Link, "card %s does not take the address %s: %v", card.Device, card.Address, err)
			card.free = false
		}
	}
}

// gateway asks whether the gateway is there, sends everything over it for the time of the check, and whether packets of full size reach it.
func (c *check) gateway(ctx context.Context, up []*at) error {
	if !slices.ContainsFunc(c.plan.Cards, func(card Card) bool { return card.Address.Contains(c.plan.Gateway) }) {
		c.problem(Gateway, "the gateway %s is in no network of a card", c.plan.Gateway)
		return nil
	}
	for _, card := range up {
		if !card.free || !card.Address.Contains(c.plan.Gateway) {
			continue
		}
		owner, err := resolve(ctx, card.link.Attrs(), card.Address.Addr(), c.plan.Gateway)
		if err != nil {
			return err
		}
		if owner == nil {
			c.problem(Gateway, "the gateway %s does not answer on %s", c.plan.Gateway, card.Device)
			return nil
		}
		route := &netlink.Route{LinkIndex: card.link.Attrs().Index, Gw: c.plan.Gateway.AsSlice(), Priority: 1 << 20}
		if err := netlink.RouteAdd(route); err == nil {
			c.undo = append(c.undo, func() error { return netlink.RouteDel(route) })
		} else if !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("route to the gateway %s: %w", c.plan.Gateway, err)
		}
		link, err := netlink.LinkByIndex(card.link.Attrs().Index)
		if err != nil {
			return err
		}
		whole, err := probe.Reaches(ctx, probe.From{Device: card.Device, Address: card.Address.Addr()}, c.plan.Gateway, link.Attrs().MTU)
		if err != nil {
			return fmt.Errorf("the way to the gateway over %s: %w", card.Device, err)
		}
		if !whole {
			c.problem(MTU, "packets of %d bytes, the MTU of %s, do not reach the gateway %s; small ones do", link.Attrs().MTU, card.Device, c.plan.Gateway)
		}
		return nil
	}
	c.problem(Gateway, "the gateway %s cannot be tried: its card does not work", c.plan.Gateway)
	return nil
}
