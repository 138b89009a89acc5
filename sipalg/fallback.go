package sipalg

import "strings"

// FilterFallbackTarget removes X-Cisco-UC-IME-Fallback-Target from a message that
// came from outside unless the rules of the header let it pass: one header, on a
// 18x or 200 answer to an INVITE that came from the own call agent
// (inviteFromInside), of the form <tel:+DIGITS>;dtmf=DIGITS with 1 to 15 and 4 to
// 20 digits. Anything else would let a stranger make a call agent dial any number.
// It reports whether something was removed.
func FilterFallbackTarget(m *Message, inviteFromInside bool) bool {
	n := m.Count(HeaderFallbackTarget)
	if n == 0 {
		return false
	}
	_, method := m.CSeq()
	answer := !m.IsRequest() && method == "INVITE" && (m.Status == 200 || m.Status >= 180 && m.Status <= 189)
	if n == 1 && inviteFromInside && answer && fallbackTargetOK(m.Get(HeaderFallbackTarget)) {
		return false
	}
	m.Del(HeaderFallbackTarget)
	return true
}

func fallbackTargetOK(v string) bool {
	v, ok := strings.CutPrefix(v, "<tel:+")
	if !ok {
		return false
	}
	phone, dtmf, ok := strings.Cut(v, ">;dtmf=")
	return ok && isDigits(phone) && len(phone) <= 15 && isDigits(dtmf) && len(dtmf) >= 4 && len(dtmf) <= 20
}

// ownPrefix begins the names of the headers between a call agent and its own proxy.
const ownPrefix = "X-Cisco-UC-IME-"

// FilterOwn removes from a message that came from outside the headers that a call agent has from its own proxy alone: all of X-Cisco-UC-IME-* but
// the ticket, and the fallback target, on which FilterFallbackTarget decides. One that no version here knows may be an order to the call agent too.
func FilterOwn(m *Message) {
	for i := 0; i < len(m.Headers); {
		h := &m.Headers[i]
		if len(h.Name) < len(ownPrefix) || !strings.EqualFold(h.Name[:len(ownPrefix)], ownPrefix) || h.Is(HeaderTicket) || h.Is(HeaderFallbackTarget) {
			i++
			continue
		}
		m.Del(h.Name)
	}
}
