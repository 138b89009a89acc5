package sipalg

import "fmt"

// Cause names why a message was refused. The set is closed (see Causes), so a
// cause may be a metric label.
type Cause string

// The causes, in the order in which Causes lists them.
const (
	// CauseNotSIP: the bytes are not the beginning of any SIP message (a TLS
	// record, binary garbage, another protocol without one SIP header).
	CauseNotSIP Cause = "not_sip"
	// CauseTruncated: the stream ended within a message.
	CauseTruncated Cause = "truncated_message"
	// CauseFrameTooLarge: head and body together exceed the frame limit.
	CauseFrameTooLarge Cause = "frame_too_large"
	// CauseNoContentLength: Content-Length is absent on a stream (RFC 3261 18.3).
	CauseNoContentLength Cause = "no_content_length"
	// CauseBadContentLength: Content-Length is negative, not a number, given
	// twice with different values, or not the length of the body.
	CauseBadContentLength Cause = "bad_content_length"
	// CauseStartLine: the first line is neither a request nor a status line.
	CauseStartLine Cause = "bad_start_line"
	// CauseVersion: the SIP version is another one than 2.0.
	CauseVersion Cause = "unsupported_version"
	// CauseLineEnd: a line ends with a bare LF or a bare CR.
	CauseLineEnd Cause = "bare_line_end"
	// CauseNUL: a NUL stands in the head.
	CauseNUL Cause = "nul_in_head"
	// CauseNoColon: a header line has no colon.
	CauseNoColon Cause = "header_without_colon"
	// CauseHeaderName: a header name is empty or not a token.
	CauseHeaderName Cause = "bad_header_name"
	// CauseStrayFold: the first header line begins with white space, so that it
	// continues nothing.
	CauseStrayFold Cause = "stray_continuation"
	// CauseHeaderTooLong: an unfolded header exceeds MaxLine.
	CauseHeaderTooLong Cause = "header_too_long"
	// CauseTooManyHeaders: more than MaxHeaders headers.
	CauseTooManyHeaders Cause = "too_many_headers"
	// CauseMissingHeader: To, From, Call-ID, CSeq or Via is absent.
	CauseMissingHeader Cause = "missing_header"
	// CauseDuplicateHeader: a header that may stand once stands more often.
	CauseDuplicateHeader Cause = "duplicate_header"
	// CauseRequestURI: the Request-URI is malformed.
	CauseRequestURI Cause = "bad_request_uri"
	// CauseURIControl: a URI holds a control character, plain or escaped.
	CauseURIControl Cause = "control_character_in_uri"
	// CauseVia: a Via is malformed.
	CauseVia Cause = "bad_via"
	// CauseFrom: From is malformed.
	CauseFrom Cause = "bad_from"
	// CauseNoFromTag: From has no tag.
	CauseNoFromTag Cause = "no_from_tag"
	// CauseTo: To is malformed.
	CauseTo Cause = "bad_to"
	// CauseCallID: Call-ID is empty or not one word.
	CauseCallID Cause = "bad_call_id"
	// CauseIdentifier: what tells a dialog or a transaction from others exceeds
	// MaxIdentifier or MaxEvent.
	CauseIdentifier Cause = "identifier_too_long"
	// CauseContact: a Contact is malformed, or there is more than one in a
	// request that may have one only.
	CauseContact Cause = "bad_contact"
	// CauseNoContact: a request that needs a Contact has none.
	CauseNoContact Cause = "no_contact"
	// CauseRoute: a Route, Record-Route, Path or Service-Route is malformed.
	CauseRoute Cause = "bad_route"
	// CauseReferTo: a Refer-To or Referred-By is malformed.
	CauseReferTo Cause = "bad_refer_to"
	// CauseIdentity: another header with an identity (P-Asserted-Identity,
	// P-Preferred-Identity, Remote-Party-ID, Reply-To, Diversion) is malformed.
	CauseIdentity Cause = "bad_identity"
	// CauseMaxForwards: Max-Forwards is not a number from 0 to 255.
	CauseMaxForwards Cause = "bad_max_forwards"
	// CauseTooManyHops: Max-Forwards is 0.
	CauseTooManyHops Cause = "too_many_hops"
	// CauseCSeq: CSeq is malformed or its number exceeds 2^31-1.
	CauseCSeq Cause = "bad_cseq"
	// CauseCSeqMethod: CSeq names another method than the request line.
	CauseCSeqMethod Cause = "cseq_method_mismatch"
	// CauseNoContentType: there is a body and no Content-Type.
	CauseNoContentType Cause = "no_content_type"
	// CauseContentType: Content-Type is malformed or a multipart type without
	// boundary.
	CauseContentType Cause = "bad_content_type"
	// CauseBody: the body is not what its Content-Type says.
	CauseBody Cause = "body_mismatch"
	// CauseContentEncoding: the body has an encoding other than identity.
	CauseContentEncoding Cause = "content_encoding"
)

var causes = []Cause{
	CauseNotSIP, CauseTruncated, CauseFrameTooLarge, CauseNoContentLength, CauseBadContentLength,
	CauseStartLine, CauseVersion, CauseLineEnd, CauseNUL, CauseNoColon, CauseHeaderName, CauseStrayFold,
	CauseHeaderTooLong, CauseTooManyHeaders, CauseMissingHeader, CauseDuplicateHeader, CauseRequestURI,
	CauseURIControl, CauseVia, CauseFrom, CauseNoFromTag, CauseTo, CauseCallID, CauseIdentifier, CauseContact, CauseNoContact,
	CauseRoute, CauseReferTo, CauseIdentity, CauseMaxForwards, CauseTooManyHops, CauseCSeq, CauseCSeqMethod,
	CauseNoContentType, CauseContentType, CauseBody, CauseContentEncoding,
}

// Causes returns every cause, in a fixed order, in a slice of the caller's own.
func Causes() []Cause { return append([]Cause(nil), causes...) }

// Violation is the verdict on a message that must go no further.
type Violation struct {
	// Cause is the counter to raise.
	Cause Cause
	// Status and Phrase are the answer that is due; Status 0 means none: a
	// response, an ACK, or bytes that hold nothing to answer to.
	Status int
	Phrase string
	// Close says that the place where the next message begins is unknown, so
	// that the connection must end after the answer.
	Close bool
	// Message is what could be read of the message, for NewResponse. Never nil.
	Message *Message
	// Err is the reader's error behind the violation, if any.
	Err error
}

// Error gives the cause and the answer.
func (v *Violation) Error() string {
	if v.Status == 0 {
		return fmt.Sprintf("sip message refused: %s", v.Cause)
	}
	return fmt.Sprintf("sip message refused: %s (%d %s)", v.Cause, v.Status, v.Phrase)
}

// Unwrap gives the reader's error, io.ErrUnexpectedEOF for a truncated message.
func (v *Violation) Unwrap() error { return v.Err }

// refuse makes a Violation and withholds the answer where none is due (RFC 3261
// 8.2.6 and 17.1.1.3: responses and ACK are never answered).
func refuse(m *Message, cause Cause, status int, phrase string) *Violation {
	v := &Violation{Cause: cause, Status: status, Phrase: phrase, Message: m}
	if !m.IsRequest() || m.Method == "ACK" || !(m.Has("Via") || m.Has("Call-ID") || m.Has("CSeq")) {
		v.Status, v.Phrase = 0, ""
	}
	return v
}
