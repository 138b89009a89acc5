package sdp

import "errors"

// Errors of this package. They come wrapped with the line or the value at
// fault; compare with errors.Is.
var (
	// ErrMalformed reports a description that cannot be read safely: a line
	// that is not TYPE=VALUE, a bare CR, a NUL, an m=, c= or o= line without
	// its fields.
	ErrMalformed = errors.New("malformed session description")
	// ErrTooLarge reports a description or a line above its cap.
	ErrTooLarge = errors.New("session description too large")
	// ErrTooManyMedia reports more than MaxMedia m= lines.
	ErrTooManyMedia = errors.New("too many m= lines")
	// ErrEdit reports an Edit that does not fit the description.
	ErrEdit = errors.New("edit does not fit the session description")
	// ErrCrypto reports an a=crypto line that cannot be read.
	ErrCrypto = errors.New("malformed a=crypto")
	// ErrAnswer reports an answer whose a=crypto does not fit the offer.
	ErrAnswer = errors.New("unusable a=crypto in the answer")
	// ErrMultipart reports a multipart body that cannot be taken apart
	// without doubt, or that goes over a cap.
	ErrMultipart = errors.New("malformed multipart body")
)
