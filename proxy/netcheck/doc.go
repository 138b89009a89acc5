// Package netcheck tries whether a machine can do with the network that somebody has typed for it (guide: "Installation network errors"), before it
// is stored.
//
// Data in: cards with addresses, the gateway, name servers, time servers, the machine's name. Data out: what is wrong, in words for an operator. For
// the time of a check the cards are set up with these addresses; afterwards they are as they were.
//
// Sources: RFC 5227 section 2.1.1 (address probes, here three in 600 ms and not in 7 s: somebody waits), RFC 826, RFC 792 (echoes that may not be
// divided find a link on the way that is too narrow), RFC 1035 by the Go resolver, RFC 5905 by beevik/ntp.
//
// Limits: IPv4; LinkTime for a link, AnswerTime for an answer, all servers at once. It needs CAP_NET_ADMIN and CAP_NET_RAW. One check at a time.
package netcheck
