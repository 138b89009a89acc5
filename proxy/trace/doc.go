// Package trace passes on what happens in the appliance, as it happens, to operators who look: `debug` and `capture`.
//
// Data in: SIP messages as they are read from and written to connections, after TLS; events in words, each of one Kind. Data out: Events to
// subscriptions, behind filters (a call, a number, a peer). A filter that knows a call by one message follows it by its Call-ID on both sides.
//
// Keys of SRTP in session descriptions (a=crypto, RFC 4568) are blotted out, in their length, before anyone sees them; the addresses and all else stay.
//
// Cost: one atomic load where nobody looks. A subscriber who is slower than the appliance loses events and is told how many: nothing ever
// waits for him. Limits: MaxSubscriptions, MaxWaiting events and MaxBytes of a subscription, MaxCalls that a filter follows. A nil Hub is one that
// nobody looks at. Safe for concurrent use.
package trace
