package vap

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// Code is an error code of section 6.
type Code int

// The codes.
const (
	CodeBadRequest         Code = 400
	CodeUnauthorized       Code = 401
	CodeTooLarge           Code = 413
	CodeUnknownAttribute   Code = 420
	CodeIntegrity          Code = 431
	CodeNonceRequired      Code = 435
	CodeStaleNonce         Code = 438
	CodeBadHandle          Code = 471
	CodeVersionTooLow      Code = 472
	CodeUnknownService     Code = 473
	CodeUnregistered       Code = 474
	CodeInvalidIdentity    Code = 475
	CodeUnknownSub         Code = 476
	CodeAlreadyRegistered  Code = 477
	CodeUnsupportedVersion Code = 478
	CodeForbidden          Code = 479
	CodeQuota              Code = 481
	CodeTooManyConnections Code = 482
	CodeMisc               Code = 499
	CodeResponder          Code = 500
	CodeNotImplemented     Code = 501
)

var codeReasons = map[Code]string{
	CodeBadRequest: "Bad Request", CodeUnauthorized: "Unauthorized", CodeTooLarge: "Request Too Large", CodeUnknownAttribute: "Unknown Attribute",
	CodeIntegrity: "Integrity Check Failure", CodeNonceRequired: "Nonce Required", CodeStaleNonce: "Stale Nonce", CodeBadHandle: "Bad Client Handle",
	CodeVersionTooLow: "Version Number Too Low", CodeUnknownService: "Unknown Service", CodeUnregistered: "Unregistered",
	CodeInvalidIdentity: "Invalid ServiceIdentity", CodeUnknownSub: "Unknown Subscription", CodeAlreadyRegistered: "Already Registered",
	CodeUnsupportedVersion: "Unsupported Protocol Version", CodeForbidden: "Unknown or Forbidden Domain", CodeQuota: "Quota Exceeded",
	CodeTooManyConnections: "Too Many Connections", CodeMisc: "Miscellaneous Request Error", CodeResponder: "Responder Error",
	CodeNotImplemented: "Not Implemented",
}

func (c Code) String() string {
	if r, ok := codeReasons[c]; ok {
		return fmt.Sprintf("%d %s", int(c), r)
	}
	return fmt.Sprintf("%d", int(c))
}

// Error is an error of the protocol: what a request is answered with. A [Handler] returns one to choose the code; of any other error the
// client learns 500 and nothing more.
type Error struct {
	Code   Code
	Reason string // for people; empty: the code's own
	Quota  *Quota // with 481, where numbers are too many
}

// Quota is the count of unique numbers that are published and the count that may be.
type Quota struct{ Current, Target uint32 }

func (e *Error) Error() string {
	if e.Reason == "" {
		return e.Code.String()
	}
	return fmt.Sprintf("%s: %s", e.Code, e.Reason)
}

// ErrForbidden is what a client's OnNotify returns for a route that its trust rules forbid: the server is told so and does not bring the
// route again.
var ErrForbidden = errors.New("forbidden by the trust rules")

func bad(format string, args ...any) error {
	return &Error{Code: CodeBadRequest, Reason: fmt.Sprintf(format, args...)}
}

func fail(code Code, format string, args ...any) error {
	return &Error{Code: code, Reason: fmt.Sprintf(format, args...)}
}

// refuse makes the error answer of a request. The text of an error that is no *Error stays here: it may tell of the server's inside.
func (m *message) refuse(err error) *message {
	e := &Error{Code: CodeResponder}
	errors.As(err, &e)
	reason := e.Reason
	if reason == "" {
		reason = codeReasons[e.Code]
	}
	if len(reason) > 255 {
		reason = strings.ToValidUTF8(reason[:255], "")
	}
	a := &message{class: Failure, method: m.method, id: m.id}
	a.put(attrErrorCode, append([]byte{0, 0, byte(e.Code / 100), byte(e.Code % 100)}, reason...))
	if e.Code == CodeUnknownAttribute {
		var list []byte
		for _, t := range m.unknown {
			list = binary.BigEndian.AppendUint16(list, t)
		}
		a.put(attrUnknown, list)
	}
	if e.Code == CodeUnsupportedVersion {
		a.put(attrVersion, protocolVersion)
	}
	if e.Quota != nil {
		a.put(attrQuota, e.Quota.bytes())
	}
	return a
}

// err is the error that an answer carries; nil for a success.
func (m *message) err() error {
	if m.class != Failure {
		return nil
	}
	v := m.get(attrErrorCode)
	if v == nil {
		return &Error{Code: CodeMisc, Reason: "an error without a code"}
	}
	e := &Error{Code: Code(v[2])*100 + Code(v[3]), Reason: string(v[4:])}
	if e.Reason == codeReasons[e.Code] {
		e.Reason = ""
	}
	if q := m.get(attrQuota); q != nil {
		e.Quota = &Quota{binary.BigEndian.Uint32(q), binary.BigEndian.Uint32(q[4:])}
	}
	return e
}

func (q Quota) bytes() []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, q.Current), q.Target)
}

// codeOf is the code of a protocol error, 0 for any other error.
func codeOf(err error) Code {
	if e := (*Error)(nil); errors.As(err, &e) {
		return e.Code
	}
	return 0
}
