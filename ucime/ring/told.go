package ring

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"imeproxy/ucime/learn"
)

// memberlist's messages about members, and its states of them in a push/pull.
const (
	mlSuspect    = 3
	mlAlive      = 4
	mlDead       = 5
	mlStateAlive = 0
	maxNameText  = 64
	aliveAhead   = 30 // how far the incarnation of an alive member may be ahead of one that is accused
)

// told is what a message or an entry of a push/pull says of a member.
type told struct {
	name, from           string
	addr, meta, versions []byte
	port, incarnation    uint64
	state                uint64
}

// mapField is one of a MessagePack map: text, bytes or number is set.
type mapField struct {
	name   string
	text   *string
	bytes  *[]byte
	number *uint64
	most   uint64 // length or value
}

// fields are those of a kind of message, mlPushPull for an entry of one.
func (t *told) fields(kind byte) []mapField {
	incarnation := mapField{name: "Incarnation", number: &t.incarnation, most: 1<<32 - 1}
	switch kind {
	case mlSuspect, mlDead:
		return []mapField{incarnation, {name: "Node", text: &t.name, most: maxNameText}, {name: "From", text: &t.from, most: maxNameText}}
	case mlAlive, mlPushPull:
		f := []mapField{
			incarnation,
			{name: "Addr", bytes: &t.addr, most: 16},
			{name: "Port", number: &t.port, most: 1<<16 - 1},
			{name: "Meta", bytes: &t.meta, most: descriptionMax},
			{name: "Vsn", bytes: &t.versions, most: 16},
		}
		if kind == mlAlive {
			return append(f, mapField{name: "Node", text: &t.name, most: maxNameText})
		}
		return append(f, mapField{name: "Name", text: &t.name, most: maxNameText}, mapField{name: "State", number: &t.state, most: 3})
	}
	return nil
}

// readTold reads the map that a message about a member is, or an entry of a push/pull: all of its fields, each once.
func readTold(from io.Reader, kind byte) (*told, error) {
	t := &told{}
	list := t.fields(kind)
	h := head{from: from}
	if h.byte() != 0x80|byte(len(list)) {
		h.fail(errForm)
	}
	for left := len(list); left > 0 && h.err == nil; left-- {
		name, known := string(h.bytes(maxNameText)), false
		for i := range list {
			if f := &list[i]; f.name == name {
				known, f.name = true, "" // not again
				h.value(f)
				break
			}
		}
		if !known {
			h.fail(errForm)
		}
	}
	return t, h.err
}

func (h *head) value(f *mapField) {
	switch {
	case f.number != nil:
		if *f.number = h.number(false); *f.number > f.most {
			h.fail(errSize)
		}
	case f.bytes != nil:
		*f.bytes = h.bytes(f.most)
	default:
		*f.text = string(h.bytes(f.most))
	}
}

// bytes reads a string, bytes, or nothing.
func (h *head) bytes(most uint64) []byte {
	var n uint64
	switch c := h.byte(); {
	case c == 0xc0:
		return nil
	case c&0xe0 == 0xa0:
		n = uint64(c & 0x1f)
	case c == 0xd9 || c == 0xc4:
		n = uint64(h.byte())
	case c == 0xda || c == 0xc5:
		n = uint64(binary.BigEndian.Uint16(h.take(2)))
	default:
		h.fail(errForm)
	}
	if n > most {
		h.fail(errSize)
	}
	if h.err != nil {
		return nil
	}
	return h.take(int(n))
}

// encode writes it in the one form in which memberlist gets to see it, without the type of the message.
func (t *told) encode(kind byte) []byte {
	list := t.fields(kind)
	b := append(make([]byte, 0, 768), 0x80|byte(len(list)))
	for _, f := range list {
		b = append(append(b, 0xa0|byte(len(f.name))), f.name...)
		switch {
		case f.number != nil:
			b = binary.BigEndian.AppendUint32(append(b, 0xce), uint32(*f.number))
		case f.bytes != nil:
			b = put16(append(b, 0xda), *f.bytes)
		default:
			b = put16(append(b, 0xda), []byte(*f.text))
		}
	}
	return b
}

// highest is the highest incarnation that anybody may tell of a member now. Nobody signs it, and a member answers an accusation with the next one: without a bound, one message with
// the last there is would make it dead for good. The bound grows by one each second, and that of the accused is ahead.
func highest(alive bool, now time.Time) uint64 {
	if alive {
		return uint64(now.Unix()) + aliveAhead
	}
	return uint64(now.Unix())
}

// weigh judges what `by` says of a member; an error says why memberlist must not hear of it.
func (g *gossip) weigh(t *told, alive bool, by learn.PeerID) error {
	if most := highest(alive, g.w.n.now()); t.incarnation > most {
		return fmt.Errorf("incarnation %d of %s: %w", t.incarnation, t.name, errSize)
	}
	if !alive {
		return nil
	}
	_, err := g.w.n.judge(t.meta, by)
	if errors.Is(err, errForging) {
		g.accuse(by)
	}
	return err
}

// entry passes an entry of a push/pull on to memberlist. What does not verify passes too, for it was announced: memberlist asks for each member whether it may be let in.
func (g *gossip) entry(from io.Reader, by learn.PeerID) ([]byte, error) {
	t, err := readTold(from, mlPushPull)
	if err != nil {
		return nil, err
	}
	alive := t.state == mlStateAlive
	t.incarnation = min(t.incarnation, highest(alive, g.w.n.now()))
	_ = g.weigh(t, alive, by)
	return t.encode(mlPushPull), nil
}

// accuse tells the operator of a member that passes on what does not verify.
func (g *gossip) accuse(by learn.PeerID) {
	g.mu.Lock()
	told := !g.accused.take(by, g.w.n.now(), 1, 1/accusedEvery.Seconds(), 1)
	g.mu.Unlock()
	if !told {
		g.log.Warn("ring: a member passes on what does not verify; it is not heard about others until it stops", "peer", by)
	}
}
