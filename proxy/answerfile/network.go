package answerfile

import (
	"errors"
	"slices"

	"imeproxy/proxy/netcheck"
)

// What an unattended installation does when the network does not work as it was typed.
const (
	PolicyIgnore = "ignore"
	PolicyHalt   = "halt"
	PolicyRetry  = "retry" // and halt in the end
)

func setPolicy(a *Answers, v string) error {
	if !slices.Contains([]string{PolicyIgnore, PolicyHalt, PolicyRetry}, v) {
		return errors.New("must be ignore, halt or retry")
	}
	a.OnNetworkError = v
	return nil
}

// Plan is what the network check tries. Of answers that are not complete yet it has what is there.
func (a *Answers) Plan() netcheck.Plan {
	p := netcheck.Plan{Name: a.HostName + "." + a.Domain, Gateway: a.Gateway, DNS: a.DNS, NTP: a.NTP}
	cards := slices.Clone(a.Interfaces)
	slices.SortStableFunc(cards, func(x, y Interface) int { // the machine is known by its address inside
		switch {
		case x.Name == "inside" && y.Name != "inside":
			return -1
		case y.Name == "inside" && x.Name != "inside":
			return 1
		}
		return 0
	})
	for _, i := range cards {
		p.Cards = append(p.Cards, netcheck.Card{Device: i.Card, Address: i.Address, MTU: i.MTU})
	}
	return p
}

// Halts says whether an unattended installation must not go on with these problems. Without a policy an address that belongs to another host ends it,
// as that would cut off somebody who works; everything else is left for the log, as networks are often finished after their machines.
func (a *Answers) Halts(found []netcheck.Problem) bool {
	switch a.OnNetworkError {
	case PolicyIgnore:
		return false
	case PolicyHalt, PolicyRetry:
		return len(found) > 0
	}
	return slices.ContainsFunc(found, func(p netcheck.Problem) bool { return p.Kind == netcheck.Duplicate })
}
