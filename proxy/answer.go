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
	if err := m.heavy(s); err != nil {
		return nil, err
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
	m.applied = slices.DeleteFunc(m.applied, func(y *exchange) bool { return y.tag == tag })
	m.current, x.answered, x.answer = kept, true, s
	if tag != "" {
		m.keepFork(kept)
	}
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
	switch {
	case m.current != nil && m.current.tag == tag:
		return nil
	case i < 0 && m.unkept:
		return fmt.Errorf("%w: the answer of this fork was not kept: there were too many", errUnusable)
	case i < 0:
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

// keepFork keeps an answer that has come into force for when another fork's has: up to maxForked bytes a call, and maxDescribed of all.
func (m *media) keepFork(x *exchange) {
	kept := 0
	for _, y := range m.applied {
		kept += y.answer.Size()
	}
	full := m.described != nil && len(m.applied) > 0 && m.described.Load() > maxDescribed
	if len(m.applied) >= dialog.MaxDialogs || kept+x.answer.Size() > maxForked || full {
		m.unkept = true
		return
	}
	m.applied = append(m.applied, x)
	m.weigh()
}

// weigh counts the bytes of the descriptions that the call keeps: those of forks whose answers are not in force, and large ones.
func (m *media) weigh() {
	if m.weight == 0 && len(m.exchanges)+len(m.applied) == 0 && m.current == nil {
		return
	}
	n := 0
	var seen []*sdp.Session
	add := func(s *sdp.Session, fork bool) {
		if s == nil || slices.Contains(seen, s) {
			return
		}
		seen = append(seen, s)
		if size := s.Size(); fork || size >= largeDescription {
			n += size
		}
	}
	for _, x := range append(slices.Clone(m.exchanges), m.current) {
		if x != nil {
			add(x.offer, false)
			add(x.answer, false)
		}
	}
	for _, x := range m.applied {
		add(x.offer, false)
		add(x.answer, x != m.current)
	}
	if m.described != nil {
		m.described.Add(int64(n - m.weight))
	}
	m.weight = n
}

// heavy refuses a large description when those that are kept take too much: whoever may call one number could fill the memory with them.
func (m *media) heavy(s *sdp.Session) error {
	if m.described != nil && m.described.Load() > maxDescribed && s.Size() >= largeDescription {
		return fmt.Errorf("%w: it is large, and too many large ones wait for their answer", errUnusable)
	}
	return nil
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
