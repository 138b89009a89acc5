package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
)

// Block types and options of pcapng.
const (
	blockSection   = 0x0A0D0D0A
	blockInterface = 1
	blockPacket    = 6
	blockSecrets   = 10
	byteOrder      = 0x1A2B3C4D
	secretsTLS     = 0x544c534b

	optionEnd        = 0
	optionIfName     = 2
	optionIfTSResol  = 9
	optionSectionApp = 4

	linkEthernet = 1
	linkUpperPDU = 252

	// maxBlock bounds a block that is read.
	maxBlock = 1 << 20
)

// appendBlock adds a block with its two lengths; the body is padded to 32 bits.
func appendBlock(b []byte, kind uint32, body []byte) []byte {
	padded := (len(body) + 3) &^ 3
	total := uint32(12 + padded)
	b = binary.LittleEndian.AppendUint32(b, kind)
	b = binary.LittleEndian.AppendUint32(b, total)
	b = append(b, body...)
	b = append(b, make([]byte, padded-len(body))...)
	return binary.LittleEndian.AppendUint32(b, total)
}

func appendOption(b []byte, code uint16, value []byte) []byte {
	b = binary.LittleEndian.AppendUint16(b, code)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(value)))
	b = append(b, value...)
	return append(b, make([]byte, (4-len(value)%4)%4)...)
}

// header makes the blocks that a file begins with: times are nanoseconds.
func header(link uint16, name string) []byte {
	body := binary.LittleEndian.AppendUint32(nil, byteOrder)
	body = binary.LittleEndian.AppendUint16(body, 1) // version 1.0
	body = binary.LittleEndian.AppendUint16(body, 0)
	body = binary.LittleEndian.AppendUint64(body, ^uint64(0)) // length not known
	body = appendOption(body, optionSectionApp, []byte("imeproxy"))
	body = appendOption(body, optionEnd, nil)
	b := appendBlock(nil, blockSection, body)
	body = binary.LittleEndian.AppendUint16(nil, link)
	body = append(body, 0, 0)
	body = binary.LittleEndian.AppendUint32(body, 0) // no snap length
	body = appendOption(body, optionIfName, []byte(name))
	body = appendOption(body, optionIfTSResol, []byte{9})
	body = appendOption(body, optionEnd, nil)
	return appendBlock(b, blockInterface, body)
}

// packetBlock is one packet; length is what it had on the wire.
func packetBlock(at time.Time, data []byte, length int) []byte {
	ns := uint64(at.UnixNano())
	body := make([]byte, 0, 20+len(data))
	body = binary.LittleEndian.AppendUint32(body, 0)
	body = binary.LittleEndian.AppendUint32(body, uint32(ns>>32))
	body = binary.LittleEndian.AppendUint32(body, uint32(ns))
	body = binary.LittleEndian.AppendUint32(body, uint32(len(data)))
	body = binary.LittleEndian.AppendUint32(body, uint32(length))
	return appendBlock(nil, blockPacket, append(body, data...))
}

// secretsBlock carries lines of a TLS key log.
func secretsBlock(lines []byte) []byte {
	body := binary.LittleEndian.AppendUint32(nil, secretsTLS)
	body = binary.LittleEndian.AppendUint32(body, uint32(len(lines)))
	return appendBlock(nil, blockSecrets, append(body, lines...))
}

// errNotOurs says that a file is no capture of ours.
var errNotOurs = errors.New("this is no capture file of imeproxy")

// packet is one that was read back.
type packet struct {
	at     time.Time
	data   []byte
	length int
}

// readPackets gives the packets of a file of ours in their order until each returns false. A last block that was cut off is no error: a capture that
// runs is being written.
func readPackets(r io.Reader, each func(link uint16, p packet) bool) error {
	link := uint16(0)
	for first := true; ; first = false {
		kind, body, err := readBlock(r)
		switch {
		case errors.Is(err, io.EOF) && !first, errors.Is(err, io.ErrUnexpectedEOF) && !first:
			return nil
		case err != nil && first:
			return errNotOurs
		case err != nil:
			return err
		case first && (kind != blockSection || len(body) < 4 || binary.LittleEndian.Uint32(body) != byteOrder):
			return errNotOurs
		}
		switch kind {
		case blockInterface:
			if len(body) < 8 {
				return errNotOurs
			}
			link = binary.LittleEndian.Uint16(body)
		case blockPacket:
			if len(body) < 20 {
				return errNotOurs
			}
			n := binary.LittleEndian.Uint32(body[12:])
			if uint64(n) > uint64(len(body)-20) {
				return errNotOurs
			}
			ns := uint64(binary.LittleEndian.Uint32(body[4:]))<<32 | uint64(binary.LittleEndian.Uint32(body[8:]))
			if !each(link, packet{at: time.Unix(0, int64(ns)), data: body[20 : 20+n], length: int(binary.LittleEndian.Uint32(body[16:]))}) {
				return nil
			}
		}
	}
}

func readBlock(r io.Reader) (kind uint32, body []byte, err error) {
	var head [8]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	kind = binary.LittleEndian.Uint32(head[:])
	total := binary.LittleEndian.Uint32(head[4:])
	if total < 12 || total%4 != 0 || total > maxBlock {
		return 0, nil, fmt.Errorf("%w: a block of %d bytes", errNotOurs, total)
	}
	body = make([]byte, total-8)
	if _, err := io.ReadFull(r, body); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, err
	}
	return kind, body[:total-12], nil
}
