// Package dialog decides, call by call, which SIP requests and responses the
// state of their dialog allows.
//
// Purpose: the "blocks messages that do not comply with the SIP state diagrams"
// part of the application-level gateway (guide lines 372-383). A [Call] is what one
// dialog-opening request grew into: its transactions, its early and confirmed
// dialogs (forking gives several), and its subscriptions.
//
// Sources: RFC 3261 sections 9 (CANCEL), 12 (dialogs), 13 and 14 (INVITE and
// re-INVITE), 15 (BYE), 17 (transactions); RFC 3262 (PRACK); RFC 3311 (UPDATE);
// RFC 3515 and 6665 (REFER, SUBSCRIBE, NOTIFY); RFC 4028 (session timers);
// RFC 5057 (several usages of one dialog); RFC 6026 (2xx to INVITE).
//
// Data in: parsed messages with the side they came from and the time. Data out:
// an [Action]: forward, absorb, drop, or answer with a status. The package keeps
// no clock, starts no goroutine and opens no socket; the owner of a Call locks it.
//
// Limits: [MaxDialogs] dialogs and [MaxTransactions] transactions a call,
// [MaxSubscriptions] subscriptions a dialog. Over a limit a request is answered 503
// and a response is dropped.
package dialog
