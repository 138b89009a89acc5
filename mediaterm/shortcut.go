package mediaterm

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"math/bits"
	"reflect"
	"sync"
	"unsafe"
)

// The two places where the standard library makes a packet dearer than its work: cipher.NewCTR allocates a stream for
// each initialization vector, and an HMAC copies, pads and marshals its state. A shortcut sets the vector of a standing
// stream and uses the hash as the bare compression function, from states kept for each key. Both reach into types of
// the standard library, found by reflection and proved against the plain path before they are used (verify).
//
// A third makes the sums of many packets side by side (lanes.go), where the processor can.
//
// The plain path needs nothing but exported functions and gives the same bytes.

// shortcuts says which are in use and where their fields lie.
type shortcuts struct {
	ctr                bool
	ctrLo, ctrHi, ctrN uintptr // offsets of the start counter's halves and of the position
	sha                bool
	shaH               uintptr // offset of the chaining value
	lanes              int     // so many sums are made side by side, 16, 8 or 0; needs sha
}

const shaBlock = 64

// findShortcuts looks for the fields. It proves nothing yet.
func findShortcuts() (s shortcuts, err error) {
	block, err := aes.NewCipher(make([]byte, 16))
	if err != nil {
		return s, fmt.Errorf("AES: %w", err)
	}
	stream := reflect.TypeOf(cipher.NewCTR(block, make([]byte, aes.BlockSize)))
	// A struct of one pointer is what an interface holds directly: its word is the address of the state.
	if stream.Kind() == reflect.Struct && stream.NumField() == 1 && stream.Field(0).Type.Kind() == reflect.Pointer {
		stream = stream.Field(0).Type
	}
	if stream.Kind() == reflect.Pointer && stream.Elem().Kind() == reflect.Struct {
		lo, okLo := field(stream.Elem(), "ivlo", reflect.TypeFor[uint64]())
		hi, okHi := field(stream.Elem(), "ivhi", reflect.TypeFor[uint64]())
		n, okN := field(stream.Elem(), "offset", reflect.TypeFor[uint64]())
		s.ctr, s.ctrLo, s.ctrHi, s.ctrN = okLo && okHi && okN, lo, hi, n
	}
	digest := reflect.TypeOf(sha1.New())
	if digest.Kind() == reflect.Pointer && digest.Elem().Kind() == reflect.Struct {
		s.shaH, s.sha = field(digest.Elem(), "h", reflect.TypeFor[[5]uint32]())
	}
	if !s.ctr || !s.sha {
		return s, errors.New("the standard library's AES-CTR or SHA-1 has another form than expected")
	}
	s.lanes = usableLanes()
	return s, nil
}

func field(t reflect.Type, name string, want reflect.Type) (offset uintptr, ok bool) {
	f, found := t.FieldByName(name)
	return f.Offset, found && f.Type == want
}

// word is the data word of an interface that holds a pointer.
func word(i any) unsafe.Pointer {
	type iface struct{ typ, data unsafe.Pointer }
	return (*iface)(unsafe.Pointer(&i)).data
}

// verify compares the shortcuts with the plain path: counter streams of many lengths with a carry through all halves of
// the counter, authentication codes of all lengths about the block size.
func (s shortcuts) verify() error {
	key := make([]byte, 20)
	for i := range key {
		key[i] = byte(3 * i)
	}
	data := make([]byte, 400)
	for i := range data {
		data[i] = byte(7*i + i>>4)
	}
	fast, plain := newCrypt(s), newCrypt(shortcuts{})
	if s.ctr {
		if err := verifyCTR(s, fast, plain, key[:16], data); err != nil {
			return err
		}
	}
	if !s.sha {
		return nil
	}
	a, b := newMAC(s, key), newMAC(shortcuts{}, key)
	for n := range data {
		x := bytes.Clone(a.sum(fast, data[:n], data[:4])[:])
		if y := b.sum(plain, data[:n], data[:4]); !bytes.Equal(x, y[:]) {
			return fmt.Errorf("HMAC-SHA1 of %d bytes differs", n)
		}
		x = bytes.Clone(a.sum(fast, data[:n], nil)[:])
		if y := b.sum(plain, data[:n], nil); !bytes.Equal(x, y[:]) {
			return fmt.Errorf("HMAC-SHA1 of %d bytes differs", n)
		}
	}
	return nil
}

func verifyCTR(s shortcuts, fast, plain *crypt, key, data []byte) error {
	a, err := newCounter(s, key)
	if err != nil {
		return err
	}
	b, err := newCounter(shortcuts{}, key)
	if err != nil {
		return err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return fmt.Errorf("AES: %w", err)
	}
	x, y, z := make([]byte, len(data)), make([]byte, len(data)), make([]byte, len(data))
	for n := range data {
		iv := [16]byte{0xf0, byte(n)}
		if n%3 == 0 { // carries from the last byte through the whole counter
			for i := range iv {
				iv[i] = 0xff
			}
			iv[15] -= byte(n % 16)
		}
		fast.iv, plain.iv = iv, iv
		a.xor(fast, x[:n], data[:n])
		b.xor(plain, y[:n], data[:n])
		cipher.NewCTR(block, iv[:]).XORKeyStream(z[:n], data[:n])
		if !bytes.Equal(x[:n], z[:n]) || !bytes.Equal(y[:n], z[:n]) {
			return fmt.Errorf("AES-CTR of %d bytes differs", n)
		}
	}
	return nil
}

// bestShortcuts are those that give the plain path's bytes; the error says why others were abandoned.
var bestShortcuts = sync.OnceValues(func() (shortcuts, error) { return proven(findShortcuts()) })

// proven abandons what was not found or does not give the plain path's bytes.
func proven(s shortcuts, err error) (shortcuts, error) {
	if err == nil {
		err = s.verify()
	}
	if err != nil {
		return shortcuts{}, fmt.Errorf("SRTP runs without its shortcuts into the standard library: %w", err)
	}
	if s.lanes > 0 {
		if err := verifyLanes(s, newCrypt(s).sumSide); err != nil {
			s.lanes = 0
			return s, fmt.Errorf("SRTP makes its sums one after the other: %w", err)
		}
	}
	return s, nil
}

// crypt is the working memory of a transform, one for each worker: nothing is allocated a packet. Not for concurrent use.
type crypt struct {
	short shortcuts
	sha   hash.Hash
	state *[5]uint32 // within sha
	sums  [sha1.Size]byte
	iv    [aes.BlockSize]byte
	block [aes.BlockSize]byte
	aad   [rtcpHeaderLen + 4]byte
	tail  [3 * shaBlock]byte // last part of a message with its padding
	lanes *laneWork
	ready *sumJob  // of the packet that is opened now; nil: none
	later *sumList // takes the sums of packets that are sealed, which are to be made later; nil: they are made at once
}

func newCrypt(s shortcuts) *crypt {
	c := &crypt{short: s}
	if s.lanes > 0 {
		c.lanes = new(laneWork)
	}
	if s.sha {
		c.sha = sha1.New()
		c.state = (*[5]uint32)(unsafe.Add(word(c.sha), s.shaH))
	}
	return c
}

// counter is AES in counter mode under one key.
type counter struct {
	stream cipher.Stream  // with the shortcut
	state  unsafe.Pointer // of stream
	block  cipher.Block   // without
}

func newCounter(s shortcuts, key []byte) (counter, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return counter{}, fmt.Errorf("AES: %w", err)
	}
	if !s.ctr {
		return counter{block: block}, nil
	}
	stream := cipher.NewCTR(block, make([]byte, aes.BlockSize))
	return counter{stream: stream, state: word(stream)}, nil
}

// xor applies the key stream that begins at c.iv. dst may be src.
func (k *counter) xor(c *crypt, dst, src []byte) {
	if k.stream != nil {
		*(*uint64)(unsafe.Add(k.state, c.short.ctrLo)) = binary.BigEndian.Uint64(c.iv[8:])
		*(*uint64)(unsafe.Add(k.state, c.short.ctrHi)) = binary.BigEndian.Uint64(c.iv[:])
		*(*uint64)(unsafe.Add(k.state, c.short.ctrN)) = 0
		k.stream.XORKeyStream(dst[:len(src)], src)
		return
	}
	hi, lo := binary.BigEndian.Uint64(c.iv[:]), binary.BigEndian.Uint64(c.iv[8:])
	for len(src) > 0 {
		k.block.Encrypt(c.block[:], c.iv[:])
		n := min(len(src), aes.BlockSize)
		for i := range n {
			dst[i] = src[i] ^ c.block[i]
		}
		dst, src = dst[n:], src[n:]
		var carry uint64
		lo, carry = bits.Add64(lo, 1, 0)
		hi += carry
		binary.BigEndian.PutUint64(c.iv[:], hi)
		binary.BigEndian.PutUint64(c.iv[8:], lo)
	}
}

// mac is HMAC-SHA1 (RFC 2104) under one key. With the shortcut it keeps the chaining values after the two padded keys.
type mac struct {
	inner, outer [5]uint32
	plain        hash.Hash // without
}

func newMAC(s shortcuts, key []byte) mac {
	if !s.sha {
		return mac{plain: hmac.New(sha1.New, key)}
	}
	var m mac
	var pad [shaBlock]byte
	h := sha1.New()
	for _, side := range [...]struct {
		with byte
		to   *[5]uint32
	}{{0x36, &m.inner}, {0x5c, &m.outer}} {
		for i := range pad {
			pad[i] = side.with
			if i < len(key) {
				pad[i] ^= key[i]
			}
		}
		h.Reset()
		h.Write(pad[:])
		*side.to = *(*[5]uint32)(unsafe.Add(word(h), s.shaH))
	}
	clear(pad[:])
	return m
}

// sum is the code over the message and then more (at most 64 bytes), valid until the next call with c.
func (m *mac) sum(c *crypt, msg, more []byte) *[sha1.Size]byte {
	if m.plain != nil {
		m.plain.Reset()
		m.plain.Write(msg)
		m.plain.Write(more)
		m.plain.Sum(c.sums[:0])
		return &c.sums
	}
	*c.state = m.inner
	whole := len(msg) &^ (shaBlock - 1)
	if whole > 0 {
		c.sha.Write(msg[:whole])
	}
	n := copy(c.tail[:], msg[whole:])
	n += copy(c.tail[n:], more)
	c.finish(n, shaBlock+len(msg)+len(more))
	*(*[sha1.Size]byte)(c.tail[:]) = c.sums
	*c.state = m.outer
	c.finish(sha1.Size, shaBlock+sha1.Size)
	return &c.sums
}

// finish pads the n bytes of tail, the end of a message of total bytes, and stores the digest in sums.
func (c *crypt) finish(n, total int) {
	end := (n + 1 + 8 + shaBlock - 1) &^ (shaBlock - 1)
	c.tail[n] = 0x80
	clear(c.tail[n+1 : end-8])
	binary.BigEndian.PutUint64(c.tail[end-8:], uint64(total)*8)
	c.sha.Write(c.tail[:end])
	for i, w := range c.state {
		binary.BigEndian.PutUint32(c.sums[4*i:], w)
	}
}
