// Package mediaterm terminates the media of calls: it owns the media-termination
// addresses, hands out their ports, and relays each stream between its inside leg
// (RTP, or SRTP on a secure trunk) and its outside leg (SRTP), counting all it sees.
//
// # Purpose
//
// A stream is one m= line. It has two legs, Inside and Outside, and each leg has a
// pair of UDP ports on one of our addresses: RTP on the even port, RTCP on the next.
// What arrives on one leg leaves on the other, with the SRTP transform taken off and
// put on as each leg's keys say. Payloads, SSRCs, sequence numbers and timestamps are
// never changed, so that codecs, DTMF events and RTCP reports stay true end to end. A
// Reporter's packets have an SSRC of their own.
//
// # Documents
//
//   - RFC 3550: RTP and RTCP, sequence numbers (A.1), loss (A.3), jitter (A.8)
//   - RFC 3711: SRTP and SRTCP, index (3.3.1), replay lists (3.3.2), key lifetime (9.2)
//   - RFC 3611: VoIP metrics, read (FarVoIP) and, where somebody asks a Reporter, sent
//   - RFC 4568: key sizes, lifetime and MKI as SDES signals them
//   - RFC 7714: AES-GCM suites
//   - RFC 5761: RTP and RTCP on one port, told apart by payload type
//   - RFC 7983: what else may arrive on such a port (STUN, DTLS)
//
// # Data in, data out
//
// In: addresses and a port range (New), signalled addresses (Stream.SetRemote), keys
// (Stream.SetCrypto), datagrams. Out: datagrams, Stats and Counters, and events
// (Config.OnEvent). SDP is read and written elsewhere; nothing here parses it.
//
// # Rules that the package keeps
//
//   - Source lock. A plain leg takes packets from the signalled address only, any
//     port until the first, then that source alone. An SRTP leg takes the first
//     source that authenticates, and moves only for an authenticated, newer packet.
//     SetRemote opens the lock again. Towards the outside, media goes to the source
//     learned (NAT); towards the inside, to the address signalled.
//   - The outside leg passes nothing before its first SetCrypto; the inside leg is
//     plain until told otherwise. A leg that has a key for one direction alone passes
//     nothing in the other.
//   - Rollover counters belong to the key: they outlive re-INVITEs, holds, and the
//     return to one of the last keysKept keys. An old remote key stays accepted until
//     the first packet under the new one authenticates.
//   - No index of a local key is ever used twice (RFC 7714 section 8.3 forbids it):
//     duplicates and packets over 128 behind are dropped, as libsrtp does. For the same
//     reason SSRCs are not evicted from a key's table: at maxSSRCs new ones are refused
//     and EventSSRCLimit asks for a new key.
//   - Silence ends nothing. A leg without remote (hold) is sent nothing, while what
//     comes from it is still relayed and its receiving state kept.
//
// # Limits
//
// Config.MaxStreams streams; the port range; maxSSRCs SSRCs a key and direction;
// statsSources SSRCs with loss and jitter of their own; keysKept keys a direction;
// datagrams below maxDatagram bytes; eventQueue undelivered events. Each has a counter.
//
// # Engines
//
// The packets are moved by an Engine. "sockets" uses a UDP socket and a goroutine a port
// with pion/srtp: portable, and the reference that the other is compared with.
//
// "tproxy" (OpenTProxy) has one thread a core, a worker, for all streams. What decides its
// speed is how seldom it enters the kernel:
//
//   - Receive. The kernel writes whole datagrams for media ports into a ring that it shares
//     with the worker (Tap; packet_mmap), before the network layer has seen them. A
//     filter picks a worker's own, so that a stream stays on a core. What the ring does
//     not take (fragments, links that are no Ethernet) comes through tproxy rules (Steer)
//     into one UDP socket, 128 datagrams a system call.
//   - Wait. With little to do a worker sleeps up to MaxWait for a batch to form; while
//     batches are half full it does not. Where none may wait it looks for the next packet
//     without sleeping while packets come close together (linger). The socket is asked
//     every 2 ms while rings bring the packets.
//   - Look-up. A table by address and port finds the stream; all streams of a batch are
//     found before the first packet is worked on, so that the cache misses of one do not
//     wait for those of another. One mutex a worker is taken twice a batch.
//   - SRTP. A transform of our own that allocates nothing and keeps the HMAC's state for
//     each key; its two shortcuts into the standard library are proved at the start
//     against the plain path, and abandoned with a warning when they differ. Tests
//     compare every suite byte for byte with pion/srtp and libsrtp2.
//   - Sums. HMAC-SHA1 waits for itself, so that those of a batch are made side by side, 16
//     in the lanes of AVX-512 or 8 in those of AVX2 (lanes.go): 25 or 75 ns a packet of 172
//     bytes, 155 alone. What came sealed is summed before the batch is opened, what leaves
//     sealed before it is queued. A sum counts for the very packet, key and rollover counter
//     that it was made of; one that was not foreseen right is made anew. Proved at the start
//     as the shortcuts are. Other processors, and one packet or two, do without.
//   - Transmit. One sendmmsg a batch: frames to the neighbour's hardware address where
//     routes and neighbours are plainly known (netlink keeps them fresh), else raw IP
//     packets that the kernel routes. Longer packets than the link takes are fragmented.
//
// "xdp" is the same engine, but that frames to neighbours go through a ring of AF_XDP, which takes a
// quarter of the kernel's work off each. What goes that way passes queueing disciplines and packet
// sockets by. So it is not used on a link with a queueing discipline that somebody has set, nor where
// somebody captures packets (captureLook: within 20 ms, for which the capture lacks packets that were
// sent all the same); nor where the link's queues have other owners or the ring fails. Then, and until it
// works again, frames go by the packet socket. Whatever changes, all frames leave once and in order: what
// the kernel does not take waits some milliseconds at most, and goes before what comes after it.
//
// Overload drops the newest packets where they arrive, in the ring or the socket; both are
// of a size that fills within some 20 ms, on a slow core the ring later: of one that is more than half
// full what has waited for longer is dropped when its turn comes. A port that gets more than 200 packets in 20 ms
// is flooded and gives the rest up, so that the others do not suffer; the source that a stream hears has a share
// of its own.
//
// Measured against rtpengine: docs/performance.md.
package mediaterm
