package proxy

import (
	"fmt"
	"net/netip"
	"slices"

	"imeproxy/mediaterm"
	"imeproxy/sipalg/dialog"
	"imeproxy/sipalg/sdp"
)

// lineResult is what an answer settles for one m= line.
type lineResult struct {
	active  bool
	remote  [2]mediaterm.Remote
	local   [2]*mediaterm.Key
	peer    [2]*mediaterm.Key
	cryptos []sdp.Crypto // our answer to the offerer
	proto   string       // the offerer's
}

// makeAnswer takes the answer to x and gives the one for the offerer. Nothing changes when it
// cannot be used. tag is the answering end's, to tell forks apart.
func (m *media) makeAnswer(x *exchange, body []byte, tag string) ([]byte, error) {
	s, err := sdp.Parse(body)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUnusable, err)
	}
	if len(s.Media) != len(x.offer.Media) || len(s.Media) > len(m.lines) {
		return nil, fmt.Errorf("%w: %d m= lines answer %d", errUnusable, len(s.Media), len(x.offer.Media))
	}
	from, to := x.from.Other(), x.from
	results := make([]lineResult, len(s.Media))
	for i, ml := range s.Media {
		r, err := m.settle(x, i, ml)
		if err != nil {
			return nil, fmt.Errorf("m= line %d: %w", i+1, err)
		}
		results[i] = r
	}
	e := m.edit(to, from)
	for i, r := range results {
		me := sdp.MediaEdit{Addr: m.addr[to], Proto: r.proto, Cryptos: r.cryptos}
		if r.active {
			me.Port = int(m.lines[i].stream.Local(mediaSide(to)).Port())
		}
		e.Media = append(e.Media, me)
	}
	out, err := s.Rewrite(e)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUnusable, err)
	}
	if err := m.apply(x, s, results); err != nil {
		return nil, err
	}
	// One answer a fork is kept: a 2xx without a description makes its own fork's answer count again.
	kept := &exchange{tag: tag, offer: x.offer, from: x.from, refused: x.refused, answer: s, answered: true}
	if tag != "" && len(m.applied) < dialog.MaxDialogs {
		m.applied = append(slices.DeleteFunc(m.applied, func(y *exchange) bool { return y.tag == tag }), kept)
	}
	m.current, x.answered, x.answer = kept, true, s
	m.note("answer", from, s, results)
	return out, nil
}

// settle works out one m= line of an answer.
func (m *media) settle(x *exchange, i int, ans *sdp.Media) (lineResult, error) {
	var r lineResult
	off, l := x.offer.Media[i], m.lines[i]
	from, to := x.from.Other(), x.from
	r.proto = off.Proto
	if ans.Port == 0 || off.Port == 0 || x.refused[i] || l.stream == nil {
		return r, nil
	}
	if !ans.IsRTP() || ans.Kind != off.Kind {
		return r, fmt.Errorf("%w: %s %s answers %s %s", errUnusable, ans.Kind, ans.Proto, off.Kind, off.Proto)
	}
	if err := m.checkAddress(ans, from); err != nil {
		return r, err
	}
	if err := m.answererKeys(&r, l, ans, from); err != nil {
		return r, err
	}
	if off.IsSecure() {
		chosen := off.UsableCryptos(suiteNames)
		if len(chosen) == 0 {
			return r, fmt.Errorf("%w: no usable a=crypto", errUnusable)
		}
		peer := mediaKey(chosen[0])
		local, err := l.key(to, peer.Suite)
		if err != nil {
			return r, err
		}
		r.local[to], r.peer[to] = &local, &peer
		r.cryptos = []sdp.Crypto{sdp.NewCrypto(chosen[0].Tag, chosen[0].Suite, local.Master, local.Salt)}
	}
	mux := off.Mux && ans.Mux
	r.active = true
	r.remote[from], r.remote[to] = remoteOf(ans, mux), remoteOf(off, mux)
	return r, nil
}

// answererKeys reads the answerer's choice among the suites that we offered. Outside SRTP is a must; on
// a secure trunk the answer may fall back to RTP (guide lines 5426-5430).
func (m *media) answererKeys(r *lineResult, l *mediaLine, ans *sdp.Media, from dialog.Side) error {
	if !ans.IsSecure() {
		if from == dialog.Outside {
			return fmt.Errorf("%w: the answer is not encrypted", errUnusable)
		}
		if !ans.IsPlain() {
			return fmt.Errorf("%w: %s was not offered", errUnusable, ans.Proto)
		}
		return nil
	}
	if from == dialog.Inside && !m.secureIn {
		return fmt.Errorf("%w: SRTP on a non-secure trunk", errUnusable)
	}
	ours, err := l.offered(from)
	if err != nil {
		return err
	}
	got, err := sdp.Answered(ours, *ans)
	if err != nil {
		return fmt.Errorf("%w: %w", errUnusable, err)
	}
	peer := mediaKey(got)
	local, err := l.key(from, peer.Suite)
	if err != nil {
		return err
	}
	r.local[from], r.peer[from] = &local, &peer
	return nil
}

// apply puts an answer into force.
func (m *media) apply(x *exchange, ans *sdp.Session, results []lineResult) error {
	for i, r := range results {
		l := m.lines[i]
		if l.stream == nil {
			continue
		}
		if !r.active {
			l.stream.Close()
			l.stream = nil
			continue
		}
		l.codec, l.pt = codec(ans.Media[i])
		l.codec, l.pt = word(l.codec, maxWord), word(l.pt, maxWord)
		for _, side := range []dialog.Side{dialog.Inside, dialog.Outside} {
			if err := l.stream.SetCrypto(mediaSide(side), r.local[side], r.peer[side]); err != nil {
				return fmt.Errorf("%w: %w", errUnusable, err)
			}
		}
		if err := l.stream.SetRemote(mediaterm.Inside, r.remote[dialog.Inside]); err != nil {
			return fmt.Errorf("%w: %w", errUnusable, err)
		}
		if err := m.silent.setRemote(l.stream, m.domain, r.remote[dialog.Outside]); err != nil {
			return fmt.Errorf("%w: %w", errUnusable, err)
		}
	}
	for _, y := range m.exchanges {
		// What is in force now is not freed when another offer comes to nothing.
		y.fresh = slices.DeleteFunc(y.fresh, func(i int) bool { return i < len(results) })
	}
	x.fresh, m.inForce = nil, max(m.inForce, len(results))
	m.watchAnswer(x, ans)
	return nil
}

// prefer makes the answer of one fork count again, when its 2xx comes without a description.
func (m *media) prefer(tag string) error {
	i := slices.IndexFunc(m.applied, func(x *exchange) bool { return x.tag == tag })
	if i < 0 || m.applied[i] == m.current {
		return nil
	}
	x := m.applied[i]
	results := make([]lineResult, len(x.answer.Media))
	for i, ml := range x.answer.Media {
		r, err := m.settle(x, i, ml)
		if err != nil {
			return err
		}
		results[i] = r
	}
	m.current = x
	return m.apply(x, x.answer, results)
}

// remoteOf is where an end wants its packets. Nothing is sent to c=0.0.0.0 (RFC 2543 hold).
func remoteOf(ml *sdp.Media, mux bool) mediaterm.Remote {
	if ml.Hold {
		return mediaterm.Remote{Mux: mux}
	}
	return mediaterm.Remote{RTP: netip.AddrPortFrom(ml.Connection.Unmap(), uint16(ml.Port)), RTCP: ml.RTCP, Mux: mux}
}

// codec names the first format of an answer, which the ends use.
func codec(ml *sdp.Media) (name, pt string) {
	if len(ml.Formats) == 0 {
		return "", ""
	}
	pt = ml.Formats[0]
	if name = ml.Rtpmap[pt]; name == "" {
		name = staticCodecs[pt]
	}
	return name, pt
}

// staticCodecs are the payload types of RFC 3551 that need no rtpmap.
var staticCodecs = map[string]string{
	"0": "PCMU/8000", "3": "GSM/8000", "4": "G723/8000", "8": "PCMA/8000", "9": "G722/8000", "15": "G728/8000", "18": "G729/8000",
	"26": "JPEG/90000", "31": "H261/90000", "34": "H263/90000",
}
