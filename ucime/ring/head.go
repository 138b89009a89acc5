package ring

import (
	"encoding/binary"
	"fmt"
	"io"
)

const (
	mlPushPull   = 6              // memberlist's message type
	maxSynced    = 2 * maxMembers // members of a push/pull, those that are gone lately among them
	maxSyncState = 1 << 16        // bytes of settings and tokens in one
)

// readHead reads what a stream of memberlist begins with: its type, and of a push/pull how much is to follow. memberlist takes memory for as much as the other side
// announces, 150 MB for twelve bytes, and so announcements that no ring can have are refused, and forms that memberlist does not write.
func readHead(from io.Reader) (read []byte, nodes int, err error) {
	h := head{from: from}
	switch kind := h.byte(); {
	case h.err != nil:
		return nil, 0, h.err
	case kind == mlCompress || kind == mlEncrypt || kind == mlUser || kind == mlLabel:
		return nil, 0, errForm
	case kind != mlPushPull:
		return h.read, 0, nil
	}
	most := map[string]uint64{"Nodes": maxSynced, "UserStateLen": maxSyncState, "Join": 1}
	if h.byte() != 0x80|byte(len(most)) {
		h.fail(errForm)
	}
	for fields := len(most); fields > 0 && h.err == nil; fields-- {
		name := h.text()
		limit, known := most[name]
		if delete(most, name); !known { // or it comes again
			h.fail(errForm)
		} else if v := h.number(name == "Join"); v > limit {
			h.fail(fmt.Errorf("%s %d: %w", name, v, errSize))
		} else if name == "Nodes" {
			nodes = int(v)
		}
	}
	return h.read, nodes, h.err
}

// head takes MessagePack values off a stream and keeps their bytes. After the first error all is zero.
type head struct {
	from io.Reader
	read []byte
	err  error
}

func (h *head) fail(err error) {
	if h.err == nil {
		h.err = err
	}
}

func (h *head) take(n int) []byte {
	b := make([]byte, n)
	if h.err == nil {
		_, h.err = io.ReadFull(h.from, b)
		h.read = append(h.read, b...)
	}
	if h.err != nil {
		clear(b)
	}
	return b
}

func (h *head) byte() byte { return h.take(1)[0] }

// text reads a string of less than 32 bytes.
func (h *head) text() string {
	n := h.byte()
	if n&0xe0 != 0xa0 {
		h.fail(errForm)
		return ""
	}
	return string(h.take(int(n & 0x1f)))
}

// number reads an integer that is not negative, or a truth as 0 or 1.
func (h *head) number(truth bool) uint64 {
	switch c := h.byte(); {
	case truth && (c == 0xc2 || c == 0xc3):
		return uint64(c & 1)
	case truth:
	case c < 0x80:
		return uint64(c)
	case c == 0xcc:
		return uint64(h.byte())
	case c == 0xcd || c == 0xd1:
		if v := binary.BigEndian.Uint16(h.take(2)); c == 0xcd || v < 1<<15 {
			return uint64(v)
		}
	case c == 0xce || c == 0xd2:
		if v := binary.BigEndian.Uint32(h.take(4)); c == 0xce || v < 1<<31 {
			return uint64(v)
		}
	}
	h.fail(errForm)
	return 0
}
