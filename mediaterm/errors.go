package mediaterm

import (
	"errors"
	"fmt"
	"net/netip"
)

// Errors that callers decide on with errors.Is.
var (
	// ErrNoPorts: every pair of the range is in use or resting. Answer 488 or 503.
	ErrNoPorts = errors.New("no free media port pair")
	// ErrStreamLimit: Config.MaxStreams streams exist.
	ErrStreamLimit = errors.New("media stream limit reached")
	// ErrClosed: the terminator or stream has been closed.
	ErrClosed = errors.New("media terminator closed")
	// ErrUnknownAddress: the address is not one of Config.Addresses.
	ErrUnknownAddress = errors.New("not a media-termination address")
	// ErrBadKey: suite unknown, or a master key, salt or MKI of the wrong size.
	ErrBadKey = errors.New("bad SRTP key")
	// ErrBadRemote: an address that media cannot be sent to from this leg.
	ErrBadRemote = errors.New("bad remote media address")
)

// BindError is a failed bind of one of our addresses; Unwrap gives the system's error.
// Its text says what to do about it.
type BindError struct {
	Addr netip.AddrPort // port 0: any port, the address itself was probed
	Hint string
	Err  error
}

// Error names the address, the system's error and the remedy.
func (e *BindError) Error() string {
	where := e.Addr.String()
	if e.Addr.Port() == 0 {
		where = e.Addr.Addr().String()
	}
	return fmt.Sprintf("media-termination address %s: %v: %s", where, e.Err, e.Hint)
}

// Unwrap returns the system's error.
func (e *BindError) Unwrap() error { return e.Err }
