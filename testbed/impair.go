package testbed

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// Loss says which packets of a media direction the Internet loses: true is lost. It begins anew with its end.
type Loss []bool

// Burst are the parameters of a Gilbert-Elliott channel: a chain of two states that goes a step with each packet. The shares are
// between 0 and 1.
type Burst struct {
	// Worsen and Recover are the chances of a step from good to bad and back.
	Worsen, Recover float64
	// Good and Bad are the shares of packets that the states lose.
	Good, Bad float64
}

// Share is the mean share of lost packets.
func (b Burst) Share() float64 {
	if b.Worsen == 0 {
		return b.Good
	}
	bad := b.Worsen / (b.Worsen + b.Recover)
	return bad*b.Bad + (1-bad)*b.Good
}

// impairPeriod is the length of a pattern in packets: 82 s of a call with 20 ms packets.
const impairPeriod = 4096

// BurstLoss is a pattern of a Gilbert-Elliott channel that begins in its good state; one seed makes one pattern.
func BurstLoss(seed uint64, b Burst) Loss {
	r := rand.New(rand.NewPCG(seed, 0))
	l := make(Loss, impairPeriod)
	bad := false
	for i := range l {
		share, leave := b.Good, b.Worsen
		if bad {
			share, leave = b.Bad, b.Recover
		}
		l[i] = r.Float64() < share
		if r.Float64() < leave {
			bad = !bad
		}
	}
	return l
}

// RandomLoss is a pattern in which each packet is lost with the same chance.
func RandomLoss(seed uint64, share float64) Loss { return BurstLoss(seed, Burst{Good: share}) }

// Blackout is a direction that loses everything.
func Blackout() Loss { return Loss{true} }

// Lost counts the lost packets of the pattern, and the longest run of them.
func (l Loss) Lost() (n, longest int) {
	run := 0
	for _, lost := range l {
		if !lost {
			run = 0
			continue
		}
		n++
		run++
		longest = max(longest, run)
	}
	return n, longest
}

// rule is the nftables rule that drops the lost packets of what comes in by an interface. RTP alone is counted and lost: the
// even ports of the proxies' media termination. A blackout swallows RTCP too.
func (l Loss) rule(iif string) string {
	n, _ := l.Lost()
	switch n {
	case 0:
		return ""
	case len(l):
		return fmt.Sprintf("iifname %q udp dport 16384-32767 counter drop", iif)
	}
	var runs []string
	for i := 0; i < len(l); i++ {
		from := i
		for i < len(l) && l[i] {
			i++
		}
		switch i - from {
		case 0:
		case 1:
			runs = append(runs, fmt.Sprint(from))
		default:
			runs = append(runs, fmt.Sprintf("%d-%d", from, i-1))
		}
	}
	return fmt.Sprintf("iifname %q udp dport 16384-32767 udp dport & 1 == 0 numgen inc mod %d { %s } counter drop", iif, len(l), strings.Join(runs, ", "))
}

// Spoil lets the media that each of the enterprises sends suffer a loss, each from the begin of its pattern; nobody else's
// does. It replaces what Impair or an earlier Spoil did, at once and while calls stand; nil makes a good Internet again.
func (i *Internet) Spoil(losses map[*Enterprise]Loss) error {
	var rules []string
	for e, l := range losses {
		if r := l.rule("e" + e.Letter); r != "" {
			rules = append(rules, r)
		}
	}
	return i.Impair(rules...)
}
