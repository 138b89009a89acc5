package ring

import (
	"bytes"
	"encoding/binary"
	"errors"

	"imeproxy/ucime/learn"
)

// sift takes a screened packet apart and returns what of it memberlist may see, nil for nothing. What is said of members is verified here, for whoever sent it, and
// settings and tokens are heard here: memberlist does not say from whom it has them.
func (g *gossip) sift(b []byte, by learn.PeerID) []byte {
	if b[0] == mlCRC { // TLS has seen to that
		b = b[5:]
	}
	if b[0] != mlCompound {
		return g.siftOne(b, by)
	}
	var kept [][]byte
	lengths, rest := b[2:], b[2+2*int(b[1]):]
	for i := range int(b[1]) {
		n := int(binary.BigEndian.Uint16(lengths[2*i:]))
		if m := g.siftOne(rest[:n], by); m != nil {
			kept = append(kept, m)
		}
		rest = rest[n:]
	}
	switch len(kept) {
	case 0:
		return nil
	case 1:
		return kept[0]
	}
	out := []byte{mlCompound, byte(len(kept))}
	for _, m := range kept {
		out = binary.BigEndian.AppendUint16(out, uint16(len(m)))
	}
	return append(out, bytes.Join(kept, nil)...)
}

func (g *gossip) siftOne(b []byte, by learn.PeerID) []byte {
	switch b[0] {
	case mlUser:
		if len(b) > 1 {
			g.hearFrom(b[1], bytes.Clone(b[2:]), by)
		}
		return nil
	case mlSuspect, mlAlive, mlDead:
		r := bytes.NewReader(b[1:])
		t, err := readTold(r, b[0])
		if err == nil && r.Len() > 0 {
			err = errLeftOver
		}
		if err == nil {
			err = g.weigh(t, b[0] == mlAlive, by)
		}
		if err != nil {
			g.dropped.Add(1)
			if b[0] == mlAlive {
				g.w.n.refused()
			}
			return nil
		}
		return append(b[:1:1], t.encode(b[0])...)
	}
	return b
}

// hearFrom takes settings or a token that a member passes on, and charges it for what does not verify.
func (g *gossip) hearFrom(kind byte, b []byte, by learn.PeerID) {
	if !g.w.n.mayForge(by, g.w.n.now()) {
		g.dropped.Add(1)
		g.accuse(by)
		return
	}
	if err := g.hear(kind, b); err == nil || errors.Is(err, errStale) {
		g.w.n.noForgery(by)
	}
}

// refused counts a description that was not taken.
func (n *node) refused() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.count.MembersRefused++
}
