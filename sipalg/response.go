package sipalg

import (
	"hash/maphash"
	"strconv"
)

// tagSeed makes tags differ between processes, so that a restarted proxy is not
// taken for the one before (RFC 3261 19.3 wants 32 random bits).
var tagSeed = maphash.MakeSeed()

// NewResponse makes the answer to a request by RFC 3261 8.2.6: every Via, From,
// To, Call-ID and CSeq are the request's, Content-Length is 0. All answers to one
// request get the same tag of ours in To where the request has none; 100 gets
// none. What the request lacks (it may be the Message of a Violation), the answer
// lacks too. extra comes after the other headers.
func NewResponse(req *Message, status int, phrase string, extra ...Header) *Message {
	m := &Message{Status: status, Phrase: phrase, response: true}
	m.Headers = make([]Header, 0, 8+len(extra))
	for _, h := range req.Headers {
		if h.Is("Via") {
			m.Headers = append(m.Headers, h)
		}
	}
	for _, name := range []string{"From", "To", "Call-ID", "CSeq"} {
		i := req.index(name)
		if i < 0 {
			continue
		}
		h := req.Headers[i]
		if name == "To" && status != 100 {
			h.Value = withTag(req, h.Value)
		}
		m.Headers = append(m.Headers, h)
	}
	if i := req.index("Timestamp"); i >= 0 && status == 100 {
		m.Headers = append(m.Headers, req.Headers[i]) // RFC 3261 8.2.6.1
	}
	m.Headers = append(m.Headers, extra...)
	m.Add("Content-Length", "0")
	return m
}

// withTag adds our tag to a To that has none.
func withTag(req *Message, to string) string {
	a, ok := splitAddress(to)
	if !ok {
		return to
	}
	if _, has := findParam(a.params(), "tag"); has {
		return to
	}
	var h maphash.Hash
	h.SetSeed(tagSeed)
	for _, s := range []string{req.CallID(), req.FromTag(), req.Get("CSeq"), req.Get("Via")} {
		h.WriteString(s)
		h.WriteByte(0)
	}
	return to + ";tag=ime" + strconv.FormatUint(h.Sum64(), 16)
}

// BuildRequest makes a request of the proxy's own: the ACK of a non-2xx answer
// (via is then the INVITE's), the ACK and BYE of an answer that cannot be used, an
// OPTIONS probe. from and to are whole header values with their tags; routes are
// Route values in the order in which they are visited; extra comes after the
// others. Max-Forwards is 70.
func BuildRequest(method, uri string, via Via, from, to, callID string, cseq uint32, routes []string, extra ...Header) *Message {
	m := &Message{Method: method, URI: uri, Headers: make([]Header, 0, 8+len(routes)+len(extra))}
	m.Add("Via", via.String())
	for _, r := range routes {
		m.Add("Route", r)
	}
	m.Add("Max-Forwards", "70")
	m.Add("From", from)
	m.Add("To", to)
	m.Add("Call-ID", callID)
	m.Add("CSeq", strconv.FormatUint(uint64(cseq), 10)+" "+method)
	m.Headers = append(m.Headers, extra...)
	m.Add("Content-Length", "0")
	return m
}
