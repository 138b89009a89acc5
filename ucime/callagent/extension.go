package callagent

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"

	"github.com/emiago/sipgo/sip"

	"imeproxy/ucime/callagent/leg"
)

// Reliable provisional answers (RFC 3262) and session timers (RFC 4028) are between the two ends of a call: what they say of them passes.
// The call agent asks for the call besides (session.go). A numbered answer gets a number of the caller's dialog, and its PRACK the one that it had.
var optionTags = []string{"100rel", "timer"}

// message is what a request and a response have in common.
type message interface {
	GetHeaders(name string) []sip.Header
	GetHeader(name string) sip.Header
}

// tagsOf are the option tags of a header field, in lower case.
func tagsOf(m message, names ...string) (out []string) {
	for _, name := range names {
		for _, h := range m.GetHeaders(name) {
			for tag := range strings.SplitSeq(h.Value(), ",") {
				if tag = strings.ToLower(strings.TrimSpace(tag)); tag != "" {
					out = append(out, tag)
				}
			}
		}
	}
	return out
}

// unsupported are the option tags that a request requires and that do not pass, as the answer 420 lists them; "": none.
func unsupported(req *sip.Request) string {
	return strings.Join(slices.DeleteFunc(tagsOf(req, "Require"), func(tag string) bool { return slices.Contains(optionTags, tag) }), ", ")
}

// extensions are the header lines that pass.
func extensions(m message) (x leg.Extra) {
	for _, names := range [][]string{{"Require"}, {"Supported", "k"}} {
		known := slices.DeleteFunc(tagsOf(m, names...), func(tag string) bool { return !slices.Contains(optionTags, tag) })
		if len(known) > 0 {
			x = append(x, [2]string{names[0], strings.Join(known, ", ")})
		}
	}
	for _, names := range [][]string{{"Session-Expires", "x"}, {"Min-SE"}} {
		for _, name := range names {
			if h := m.GetHeader(name); h != nil {
				x = append(x, [2]string{names[0], h.Value()})
				break
			}
		}
	}
	return x
}

// maximumReliable bounds the numbered answers of a call that is being set up.
const maximumReliable = 64

// reliable are the numbered provisional answers that the caller got.
type reliable struct {
	last uint32 // of the caller's dialog, 0: none yet
	sent []numbered
}

// numbered is one of them: its number at the caller, and whose it is.
type numbered struct {
	rseq   uint32
	leg    *leg.Leg
	theirs uint32
	cseq   uint32
}

// number gives a numbered provisional answer of a leg its number at the caller, the same one each time that it comes.
func (c *call) number(from *leg.Leg, res *sip.Response) leg.Extra {
	h := res.GetHeader("RSeq")
	if h == nil || !slices.Contains(tagsOf(res, "Require"), "100rel") {
		return nil
	}
	theirs, err := strconv.ParseUint(strings.TrimSpace(h.Value()), 10, 32)
	if err != nil || theirs == 0 {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.told = true // its number counts in one dialog alone
	r := &c.reliable
	for _, n := range r.sent {
		if n.leg == from && n.theirs == uint32(theirs) {
			return leg.Extra{{"RSeq", strconv.FormatUint(uint64(n.rseq), 10)}}
		}
	}
	if len(r.sent) >= maximumReliable {
		return nil
	}
	if r.last == 0 {
		r.last = rand.Uint32N(1 << 30) // RFC 3262 section 3: below 2^31
	}
	r.last++
	r.sent = append(r.sent, numbered{r.last, from, uint32(theirs), res.CSeq().SeqNo})
	return leg.Extra{{"RSeq", strconv.FormatUint(uint64(r.last), 10)}}
}

// prack passes the acknowledgement of a numbered answer to whose answer it was.
func (c *call) prack(l *leg.Leg, req *sip.Request, tx *sip.ServerTx) {
	var rseq, cseq uint32
	var method string
	if h := req.GetHeader("RAck"); h != nil {
		_, _ = fmt.Sscan(h.Value(), &rseq, &cseq, &method) // what cannot be read matches nothing
	}
	var to numbered
	c.mu.Lock()
	for _, n := range c.reliable.sent {
		if n.rseq == rseq && (n.leg == c.early || n.leg == c.far || n.leg == c.pbx) && n.leg != l {
			to = n
		}
	}
	c.mu.Unlock()
	if to.leg == nil || method != string(sip.INVITE) {
		answer(req, tx, 481, "Call/Transaction Does Not Exist")
		return
	}
	l.Offered(req)
	c.pass(l, to.leg, req, tx, append(carry(req), [2]string{"RAck", fmt.Sprintf("%d %d INVITE", to.theirs, to.cseq)}))
}

// mayAnswer makes the leg of an attempt, whose end may send requests before it answers, part of the call; nil: it was the last.
func (c *call) mayAnswer(l *leg.Leg) {
	c.mu.Lock()
	before := c.early
	c.early = l
	c.mu.Unlock()
	c.unregister(before)
	if l != nil {
		c.register(l)
	}
}
