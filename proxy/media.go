package proxy

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"

	"imeproxy/fallback"
	"imeproxy/mediaterm"
	"imeproxy/proxy/trace"
	"imeproxy/sipalg/dialog"
	"imeproxy/sipalg/sdp"
)

// errUnusable marks a session description that cannot be used: 488 where it is an offer.
var errUnusable = errors.New("session description cannot be used")

// mediaPolicy is what a call's media is made from; it does not change during the call.
type mediaPolicy struct {
	term     *mediaterm.Terminator
	addr     [2]netip.Addr // our media termination address by side
	secureIn bool          // trunk-security-mode secure: SRTP inside, RTP where the answer says so
	callID   string
	marking  map[string]mediaterm.Marking // by medium
	trace    *trace.Hub
	silent   *silentEnds // nil: media goes wherever it is wanted
	domain   string      // the far enterprise
	// described counts what weigh weighs, of all calls; nil: nobody does.
	described *atomic.Int64
	// forbidden tells why a media address from the Internet cannot be used, "" when it can.
	forbidden func(netip.Addr) string
	// sweep replaces inside addresses in lines that are not understood.
	sweep func(from dialog.Side, line string) string
}

// media is the offer/answer state of one call (RFC 3264) and its streams.
type media struct {
	mediaPolicy
	lines     []*mediaLine
	exchanges []*exchange // that may change yet; there are one or two
	applied   []*exchange // the last answer of each answering end, for forks
	current   *exchange
	inForce   int          // how many lines the last answer settled
	watched   *callQuality // nil: quality is not monitored
	weight    int          // what weigh has added to described
	unkept    bool         // the answer of a fork was not kept
}

// mediaLine is one m= line through all offers of the call: its stream and our keys.
type mediaLine struct {
	kind   string
	codec  string
	pt     string
	stream *mediaterm.Stream
	// quality judges what comes from the Internet on an audio line; nil: nobody asks.
	quality *fallback.Stream
	// keys are ours by side and suite. They stay the same through re-offers, so that a rollover
	// counter never restarts under a key in use (RFC 3711 8.1).
	keys [2][]mediaterm.Key
}

// exchange is one offer and its answer.
type exchange struct {
	tx       *dialog.Transaction // that it goes with
	tag      string              // of the answering end, of an answer that is applied
	offer    *sdp.Session
	from     dialog.Side
	refused  []bool // lines that we refused towards the answerer
	fresh    []int  // lines whose stream this offer made
	base     int    // how many lines there were before it
	answer   *sdp.Session
	answered bool
	late     bool // the INVITE had no offer: the response has it
	rendered []byte
}

func newMedia(p mediaPolicy) *media { return &media{mediaPolicy: p} }

// begin remembers the exchange of a transaction.
func (m *media) begin(tx *dialog.Transaction, x *exchange) {
	m.drop(tx)
	x.tx = tx
	m.exchanges = append(m.exchanges, x)
}

// exchange gives that of a transaction, or nil.
func (m *media) exchange(tx *dialog.Transaction) *exchange {
	for _, x := range m.exchanges {
		if x.tx == tx {
			return x
		}
	}
	return nil
}

// drop forgets the exchange of a transaction.
func (m *media) drop(tx *dialog.Transaction) {
	m.exchanges = slices.DeleteFunc(m.exchanges, func(x *exchange) bool { return x.tx == tx })
}

// close frees the streams and their ports.
func (m *media) close() {
	if m.watched != nil {
		m.watched.q.forget(m.watched)
		m.watched = nil
	}
	for _, l := range m.lines {
		if l.stream != nil {
			l.stream.Close()
			l.stream = nil
		}
	}
	m.forget()
	m.lines = nil
}

// forget drops the descriptions in force when no answer can change any more which of them hold: a call that stands keeps its streams and keys
// alone.
func (m *media) forget() {
	m.exchanges, m.applied, m.current = nil, nil, nil
	m.weigh()
}

// makeOffer takes an offer from one side and gives the one for the other side.
func (m *media) makeOffer(body []byte, from dialog.Side) (*exchange, []byte, error) {
	s, err := sdp.Parse(body)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", errUnusable, err)
	}
	if err := m.heavy(s); err != nil {
		return nil, nil, err
	}
	if len(s.Media) < len(m.lines) {
		return nil, nil, fmt.Errorf("%w: %d m= lines after %d (RFC 3264 section 8)", errUnusable, len(s.Media), len(m.lines))
	}
	x := &exchange{offer: s, from: from, refused: make([]bool, len(s.Media)), base: len(m.lines)}
	usable := 0
	for i, ml := range s.Media {
		x.refused[i] = !ml.IsRTP() && ml.Port != 0
		if err := m.checkOffered(ml, from); err != nil {
			return nil, nil, fmt.Errorf("m= line %d: %w", i+1, err)
		}
		if !x.refused[i] {
			usable++
		}
	}
	if usable == 0 && len(s.Media) > 0 {
		return nil, nil, fmt.Errorf("%w: no m= line carries RTP", errUnusable)
	}
	for i, ml := range s.Media {
		if i >= len(m.lines) {
			m.lines = append(m.lines, &mediaLine{})
		}
		if ml.Port == 0 || x.refused[i] || m.lines[i].stream != nil {
			continue
		}
		if m.term == nil {
			m.undo(x)
			return nil, nil, errors.New("no media termination is configured")
		}
		if err := m.newStream(m.lines[i], ml.Kind); err != nil {
			m.undo(x)
			return nil, nil, err
		}
		x.fresh = append(x.fresh, i)
	}
	out, err := m.renderOffer(x)
	if err != nil {
		m.undo(x)
		return nil, nil, err
	}
	x.rendered = out
	m.note("offer", from, s, nil)
	return x, out, nil
}

// note tells whoever looks what a session description asks for, and where its media goes here. Lines that settled nothing are left out.
func (m *media) note(what string, from dialog.Side, s *sdp.Session, results []lineResult) {
	if !m.trace.Wants(trace.Media) {
		return
	}
	for i, ml := range s.Media {
		l := m.lines[i]
		if ml.Port == 0 || l.stream == nil {
			m.trace.Event(trace.Media, m.callID, "", "%s of %s: %s is off", what, from, ml.Kind)
			continue
		}
		suite := ""
		if i < len(results) {
			if k := results[i].peer[dialog.Outside]; k != nil {
				suite = ", outside " + string(k.Suite)
			}
		}
		m.trace.Event(trace.Media, m.callID, "", "%s of %s: %s %s:%d %s; here %s inside, %s outside%s", what, from, ml.Kind, ml.ConnectionHost, ml.Port, ml.Proto,
			l.stream.Local(mediaterm.Inside), l.stream.Local(mediaterm.Outside), suite)
	}
}

// newStream gives a line its stream, and an audio line of a call that is watched a judge of its quality.
func (m *media) newStream(l *mediaLine, kind string) error {
	kind = word(kind, maxWord)
	p := mediaterm.StreamParams{Inside: m.addr[dialog.Inside], Outside: m.addr[dialog.Outside], CallID: m.callID, Media: kind, Marking: m.marking[kind]}
	l.quality = nil
	if m.watched != nil && kind == "audio" {
		l.quality = fallback.NewStream(nil, 0)
		p.Watcher = watchedStream{l.quality}
	}
	st, err := m.term.NewStream(p)
	if err != nil {
		return err
	}
	l.stream, l.kind = st, kind
	return nil
}

// checkOffered refuses an m= line that cannot be relayed (DESIGN, "How the edge decides").
func (m *media) checkOffered(ml *sdp.Media, from dialog.Side) error {
	if ml.Port == 0 || !ml.IsRTP() {
		return nil
	}
	if err := m.checkAddress(ml, from); err != nil {
		return err
	}
	switch {
	case from == dialog.Outside || ml.IsSecure() && m.secureIn:
		if !ml.IsSecure() {
			return fmt.Errorf("%w: %s without encryption", errUnusable, ml.Proto)
		}
		if len(ml.UsableCryptos(suiteNames)) == 0 {
			return fmt.Errorf("%w: no usable a=crypto", errUnusable)
		}
	case ml.IsSecure():
		return fmt.Errorf("%w: SRTP on a non-secure trunk", errUnusable)
	case !ml.IsPlain():
		return fmt.Errorf("%w: %s, whose keys are agreed on the media path", errUnusable, ml.Proto)
	}
	return nil
}

// checkAddress refuses media addresses to which nothing may be sent.
func (m *media) checkAddress(ml *sdp.Media, from dialog.Side) error {
	if ml.Hold {
		return nil
	}
	addrs := [2]netip.Addr{ml.Connection, ml.Connection}
	if ml.RTCP != (netip.AddrPort{}) { // port 65535 leaves none for RTCP
		addrs[1] = ml.RTCP.Addr()
	}
	for i, a := range addrs {
		if i > 0 && a == addrs[0] {
			break
		}
		a = a.Unmap()
		switch {
		case !a.IsValid() || !a.Is4():
			return fmt.Errorf("%w: %q is no IPv4 address", errUnusable, ml.ConnectionHost)
		case a.IsLoopback() || a.IsLinkLocalUnicast() || a.As4()[0] == 0 || a.As4()[0] >= 224:
			return fmt.Errorf("%w: media address %s", errUnusable, a)
		case a == m.addr[0] || a == m.addr[1]:
			return fmt.Errorf("%w: media address %s is the appliance's own", errUnusable, a)
		}
		if from == dialog.Outside {
			if why := m.forbidden(a); why != "" {
				return fmt.Errorf("%w: media address %s is %s", errUnusable, a, why)
			}
		}
	}
	return nil
}

// renderOffer writes the offer for the other side, with our addresses, ports and keys.
func (m *media) renderOffer(x *exchange) ([]byte, error) {
	to := x.from.Other()
	e := m.edit(to, x.from)
	for i, ml := range x.offer.Media {
		me := sdp.MediaEdit{Addr: m.addr[to]}
		st := m.lines[i].stream
		if ml.Port == 0 || x.refused[i] || st == nil {
			e.Media = append(e.Media, me)
			continue
		}
		me.Port = int(st.Local(mediaSide(to)).Port())
		if to == dialog.Outside || m.secureIn {
			me.Proto, _ = sdp.SecureProto(ml.Proto)
			cs, err := m.lines[i].offered(to)
			if err != nil {
				return nil, err
			}
			me.Cryptos = cs
		} else {
			me.Proto, _ = sdp.PlainProto(ml.Proto)
		}
		e.Media = append(e.Media, me)
	}
	out, err := x.offer.Rewrite(e)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUnusable, err)
	}
	return out, nil
}

func (m *media) edit(to, from dialog.Side) sdp.Edit {
	return sdp.Edit{Addr: m.addr[to], Sweep: func(line string) string {
		if strings.HasPrefix(line, "a=group:BUNDLE") {
			return "" // each m= line keeps a port of its own here (RFC 8843 7.3.3)
		}
		return m.sweep(from, line)
	}}
}

// offered gives the a=crypto lines that we offer on a side: one a suite, with keys that stay.
func (l *mediaLine) offered(side dialog.Side) ([]sdp.Crypto, error) {
	var out []sdp.Crypto
	for i, s := range mediaterm.Suites() {
		k, err := l.key(side, s)
		if err != nil {
			return nil, err
		}
		out = append(out, sdp.NewCrypto(i+1, string(s), k.Master, k.Salt))
	}
	return out, nil
}

// key is our key for a side and suite, made when first needed.
func (l *mediaLine) key(side dialog.Side, s mediaterm.Suite) (mediaterm.Key, error) {
	for _, k := range l.keys[side] {
		if k.Suite == s {
			return k, nil
		}
	}
	k, err := mediaterm.NewKey(s)
	if err != nil {
		return k, err
	}
	l.keys[side] = append(l.keys[side], k)
	return k, nil
}

// undo frees what an offer made that came to nothing (RFC 3264 section 8: the old state stays). Another offer may be under way, or have been
// answered since: what it needs stays.
func (m *media) undo(x *exchange) {
	if x == nil || x.answered {
		return
	}
	need := max(x.base, m.inForce)
	for _, y := range m.exchanges {
		if y == x || y.answered || y.offer == nil {
			continue
		}
		need, y.base = max(need, len(y.offer.Media)), min(y.base, x.base)
		x.fresh = slices.DeleteFunc(x.fresh, func(i int) bool {
			shared := i < len(y.offer.Media) && y.offer.Media[i].Port != 0 && !y.refused[i]
			if shared {
				y.fresh = append(y.fresh, i)
			}
			return shared
		})
	}
	for _, i := range x.fresh {
		if l := m.lines[i]; l.stream != nil {
			l.stream.Close()
			l.stream = nil
		}
	}
	x.fresh = nil
	m.lines = m.lines[:min(need, len(m.lines))]
}

// suiteNames are those of mediaterm.Suites; nobody changes them.
var suiteNames = func() []string {
	var out []string
	for _, s := range mediaterm.Suites() {
		out = append(out, string(s))
	}
	return out
}()

func mediaSide(s dialog.Side) mediaterm.Side {
	if s == dialog.Inside {
		return mediaterm.Inside
	}
	return mediaterm.Outside
}

// mediaKey turns an a=crypto line into the key of a stream.
func mediaKey(c sdp.Crypto) mediaterm.Key {
	return mediaterm.Key{
		Suite: mediaterm.Suite(word(sdp.CanonicalSuite(c.Suite), maxWord)), Master: c.Master, Salt: c.Salt, MKI: c.MKI, Lifetime: c.Lifetime,
	}
}
