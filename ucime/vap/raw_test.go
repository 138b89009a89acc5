package vap

// A second reading of docs/protocol/vap.md: it shares no code with the package, so that a mistake of the package is not also the test's.

import (
	"bytes"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// rawMessage is a frame with its attributes by type.
type rawMessage struct {
	typ   int // class and method
	id    [12]byte
	attrs map[int][]byte
	order []int
	bytes []byte
}

// rawAttr is an attribute to send.
type rawAttr struct {
	typ   int
	value []byte
}

func rawBytes(typ int, v string) rawAttr { return rawAttr{typ, []byte(v)} }
func rawU32(typ int, v uint32) rawAttr {
	return rawAttr{typ, []byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)}}
}

func rawU64(typ int, v uint64) rawAttr {
	return rawAttr{typ, append(rawU32(0, uint32(v>>32)).value, rawU32(0, uint32(v)).value...)}
}

// rawIdentity is service, page and VServiceId.
func rawIdentity(service, page int, id string) rawAttr {
	v := append([]byte{byte(service >> 8), byte(service), byte(page >> 8), byte(page)}, id...)
	return rawAttr{0x1007, append(v, make([]byte, 8)...)}
}

func rawEncode(typ int, id [12]byte, key []byte, attrs ...rawAttr) []byte {
	var body []byte
	for _, a := range attrs {
		body = append(body, byte(a.typ>>8), byte(a.typ), byte(len(a.value)>>8), byte(len(a.value)))
		body = append(body, a.value...)
		for len(body)%4 != 0 {
			body = append(body, 0)
		}
	}
	length := len(body)
	if key != nil {
		length += 36
	}
	m := []byte{byte(typ >> 8), byte(typ), byte(length >> 8), byte(length), 0x7f, 0x5a, 0x9b, 0xc7}
	m = append(append(m, id[:]...), body...)
	if key != nil {
		m = append(append(m, 0, 8, 0, 32), rawHMAC(key, m)...)
	}
	return m
}

func rawHMAC(key, text []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(text)
	return h.Sum(nil)
}

func rawDecode(b []byte) (m rawMessage, err error) {
	if len(b) < 20 || binary.BigEndian.Uint32(b[4:]) != 0x7f5a9bc7 || int(binary.BigEndian.Uint16(b[2:]))+20 != len(b) {
		return m, fmt.Errorf("no frame: %x", b)
	}
	m = rawMessage{typ: int(binary.BigEndian.Uint16(b)), id: [12]byte(b[8:20]), attrs: map[int][]byte{}, bytes: b}
	for rest := b[20:]; len(rest) > 0; {
		typ, n := int(binary.BigEndian.Uint16(rest)), int(binary.BigEndian.Uint16(rest[2:]))
		m.attrs[typ], m.order = rest[4:4+n], append(m.order, typ)
		rest = rest[4+(n+3)/4*4:]
	}
	return m, nil
}

// signed reports whether the integrity is right and last, and the sequence is the number.
func (m rawMessage) signed(key []byte, seq uint64) bool {
	n := len(m.bytes) - 36
	return n > 20 && bytes.Equal(m.bytes[n:n+4], []byte{0, 8, 0, 32}) && bytes.Equal(m.bytes[n+4:], rawHMAC(key, m.bytes[:n])) &&
		len(m.attrs[0x1013]) == 8 && binary.BigEndian.Uint64(m.attrs[0x1013]) == seq
}

// code is the error code, 0 for anything else.
func (m rawMessage) code() int {
	if v := m.attrs[9]; m.typ&0x110 == 0x110 && len(v) >= 4 {
		return int(v[2])*100 + int(v[3])
	}
	return 0
}

func (m rawMessage) u32(typ int) uint32 { return binary.BigEndian.Uint32(m.attrs[typ]) }

type rawKeys struct{ client, server []byte }

// rawUserKeys remembers user keys: their derivation is slow on purpose.
var rawUserKeys sync.Map

func rawDerive(user, password string, nonce, clientNonce []byte) rawKeys {
	uk, known := rawUserKeys.Load(user + " " + password)
	if !known {
		k, err := pbkdf2.Key(sha256.New, password, []byte(`vap-v1:"VAP":`+user), 100000, 32)
		if err != nil {
			panic(err)
		}
		uk, _ = rawUserKeys.LoadOrStore(user+" "+password, k)
	}
	sk := rawHMAC(uk.([]byte), []byte("vap-v1 session"+string(nonce)+string(clientNonce)))
	return rawKeys{rawHMAC(sk, []byte("client")), rawHMAC(sk, []byte("server"))}
}

// rawConn is a call agent without a mind of its own.
type rawConn struct {
	t        *testing.T
	rw       io.ReadWriteCloser
	keys     rawKeys
	out, in  uint64 // sequence numbers so far
	handle   rawAttr
	requests []rawMessage // of the server, that came while an answer was waited for
}

func rawDial(t *testing.T, addr string) *rawConn {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	_ = nc.SetDeadline(time.Now().Add(patience))
	t.Cleanup(func() { nc.Close() })
	return &rawConn{t: t, rw: nc}
}

func (c *rawConn) write(b []byte) {
	c.t.Helper()
	if _, err := c.rw.Write(b); err != nil {
		c.t.Fatal(err)
	}
}

// read reads one message; ok is false at the end of the connection.
func (c *rawConn) read() (m rawMessage, ok bool) {
	c.t.Helper()
	head := make([]byte, 20)
	if _, err := io.ReadFull(c.rw, head); err != nil {
		if os.IsTimeout(err) {
			c.t.Fatal("nothing came")
		}
		return m, false
	}
	body := make([]byte, binary.BigEndian.Uint16(head[2:]))
	if _, err := io.ReadFull(c.rw, body); err != nil {
		c.t.Fatal(err)
	}
	m, err := rawDecode(append(head, body...))
	if err != nil {
		c.t.Fatal(err)
	}
	if c.keys.server != nil {
		if c.in++; !m.signed(c.keys.server, c.in) {
			c.t.Fatalf("message %x is not signed by the server with sequence %d", m.bytes, c.in)
		}
	}
	return m, true
}

func (c *rawConn) must() rawMessage {
	c.t.Helper()
	m, ok := c.read()
	if !ok {
		c.t.Fatal("the connection ended")
	}
	return m
}

// closed checks that nothing comes any more but the end.
func (c *rawConn) closed() {
	c.t.Helper()
	if m, ok := c.read(); ok {
		c.t.Fatalf("%x came, and not the end", m.bytes)
	}
}

func rawID() (id [12]byte) {
	_, _ = rand.Read(id[:])
	return id
}

// sealed makes the next message in the client's direction.
func (c *rawConn) sealed(typ int, id [12]byte, attrs ...rawAttr) []byte {
	c.out++
	return rawEncode(typ, id, c.keys.client, append(attrs, rawU64(0x1013, c.out))...)
}

// ask sends a request with the handle and returns its answer.
func (c *rawConn) ask(method int, attrs ...rawAttr) rawMessage {
	c.t.Helper()
	return c.askPlain(method, append([]rawAttr{c.handle}, attrs...)...)
}

func (c *rawConn) askPlain(method int, attrs ...rawAttr) rawMessage {
	c.t.Helper()
	id := rawID()
	if c.keys.client == nil {
		c.write(rawEncode(method, id, nil, attrs...))
	} else {
		c.write(c.sealed(method, id, attrs...))
	}
	for {
		m := c.must()
		if m.id == id {
			if m.typ&0x3eef != method || m.typ&0x100 == 0 {
				c.t.Fatalf("type 0x%04x is no answer to method %d", m.typ, method)
			}
			return m
		}
		c.requests = append(c.requests, m)
	}
}

// request returns the next request of the server.
func (c *rawConn) request() rawMessage {
	c.t.Helper()
	if len(c.requests) > 0 {
		m := c.requests[0]
		c.requests = c.requests[1:]
		return m
	}
	m := c.must()
	if m.typ&0x110 != 0 {
		c.t.Fatalf("type 0x%04x is no request", m.typ)
	}
	return m
}

// confirm answers a request of the server with success, or with an error code.
func (c *rawConn) confirm(m rawMessage, code int) {
	c.t.Helper()
	if code != 0 {
		c.write(c.sealed(m.typ|0x110, m.id, rawAttr{9, []byte{0, 0, byte(code / 100), byte(code % 100)}}))
		return
	}
	var attrs []rawAttr
	if v := m.attrs[0x1014]; v != nil {
		attrs = append(attrs, rawAttr{0x1014, v})
	}
	c.write(c.sealed(m.typ|0x100, m.id, attrs...))
}

var rawVersion = rawAttr{0x1003, []byte{0, 1, 0, 0}}

func (c *rawConn) who(user, name string) []rawAttr {
	return []rawAttr{rawBytes(6, user), rawBytes(0x1001, name), rawVersion}
}

// challenge gets a nonce.
func (c *rawConn) challenge(user, name string) []byte {
	c.t.Helper()
	m := c.askPlain(1, c.who(user, name)...)
	if m.code() != 401 || string(m.attrs[0x14]) != `"VAP"` || len(m.attrs[0x15]) != 32 || m.attrs[8] != nil {
		c.t.Fatalf("no challenge: %d %x", m.code(), m.bytes)
	}
	return m.attrs[0x15]
}

// prove sends the second Register; the caller reads the answer. Keys are the connection's from then on if it is a success.
func (c *rawConn) prove(user, name, password string, nonce []byte) rawMessage {
	c.t.Helper()
	clientNonce := make([]byte, 32)
	_, _ = rand.Read(clientNonce)
	keys := rawDerive(user, password, nonce, clientNonce)
	id := rawID()
	c.write(rawEncode(1, id, keys.client, append(c.who(user, name), rawBytes(0x14, `"VAP"`), rawAttr{0x15, nonce},
		rawAttr{0x1012, clientNonce}, rawU64(0x1013, 1))...))
	m := c.must()
	if m.id != id {
		c.t.Fatalf("%x is no answer", m.bytes)
	}
	if m.signed(keys.server, 1) {
		c.keys, c.out, c.in = keys, 1, 1
	}
	return m
}

func (c *rawConn) register(user, name, password string) {
	c.t.Helper()
	m := c.prove(user, name, password, c.challenge(user, name))
	if m.typ != 0x101 || c.keys.client == nil || m.u32(0x1002) == 0 {
		c.t.Fatalf("not registered: %d %x", m.code(), m.bytes)
	}
	c.handle = rawAttr{0x1002, m.attrs[0x1002]}
}

const rawService = "8457bcd5"

const rawVservice = "<vservice><name>Vservice12-ccm18</name><domain>cisco.com</domain><didcount>2000</didcount>" +
	"<sipuri>sip:d954c46b@cisco.com:5082;maddr=10.94.150.96;transport=tcp</sipuri></vservice>"

// publish publishes a document; the code is 0 for success.
func (c *rawConn) publish(service, page int, id string, version uint32, doc string) rawMessage {
	c.t.Helper()
	return c.ask(4, rawIdentity(service, page, id), rawU32(0x100b, version), rawBytes(0x100c, doc))
}

func rawRegistered(t *testing.T, addr, name string) *rawConn {
	t.Helper()
	c := rawDial(t, addr)
	c.register("vapuser", name, password)
	return c
}

// rawPublished is a registered client with a service and some numbers.
func rawPublished(t *testing.T, addr, name string) *rawConn {
	t.Helper()
	c := rawRegistered(t, addr, name)
	if m := c.publish(101, 0, rawService, 1, rawVservice); m.code() != 0 {
		t.Fatalf("service refused: %s", m.attrs[9])
	}
	if m := c.publish(100, 0, rawService, 1, "<numbers><pattern>+140890215XX</pattern></numbers>"); m.code() != 0 {
		t.Fatalf("numbers refused: %s", m.attrs[9])
	}
	return c
}

type example struct {
	name  string
	bytes []byte
}

// examples reads section 8 of the document: keys, and messages in their order.
func examples(t *testing.T) (keys map[string][]byte, list []example) {
	t.Helper()
	text, err := os.ReadFile("../../docs/protocol/vap.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n## 8. Example\n")
	keys = map[string][]byte{}
	for i, block := range strings.Split(section, "```\n") {
		if i == 1 {
			for line := range strings.Lines(block) {
				keys[strings.TrimSpace(line[:11])], _ = hex.DecodeString(strings.TrimSpace(line[11:]))
			}
		} else if i%2 == 1 {
			b, err := hex.DecodeString(strings.ReplaceAll(block, "\n", ""))
			if err != nil {
				t.Fatal(err)
			}
			list[len(list)-1].bytes = b
		} else if _, name, ok := strings.Cut(block, "\n**"); ok {
			list = append(list, example{name: strings.TrimSuffix(strings.TrimSpace(name), "**")})
		}
	}
	return keys, list
}

// The examples of the document are right by its own text, and the package reads them as they are meant.
func TestExamplesOfTheDocument(t *testing.T) {
	printed, list := examples(t)
	nonce, clientNonce := make([]byte, 32), make([]byte, 32)
	for i := range nonce {
		nonce[i], clientNonce[i] = byte(i), byte(0x80+i)
	}
	keys := rawDerive("vapuser", password, nonce, clientNonce)
	if !bytes.Equal(printed["client key"], keys.client) || !bytes.Equal(printed["server key"], keys.server) {
		t.Errorf("printed keys %x", printed)
	}
	if k := users()["vapuser"]; !bytes.Equal(printed["user key"], k.b[:]) {
		t.Error("the package derives another user key")
	}
	pc, ps := sessionKeys(users()["vapuser"], nonce, clientNonce)
	if !bytes.Equal(pc, keys.client) || !bytes.Equal(ps, keys.server) {
		t.Error("the package derives other session keys")
	}
	want := []struct {
		typ    int
		client bool
		seq    uint64
	}{
		{0x001, true, 0},
		{0x111, false, 0},
		{0x001, true, 1},
		{0x101, false, 1},
		{0x004, true, 2},
		{0x104, false, 2},
		{0x004, true, 3},
		{0x114, false, 3},
		{0x007, true, 4},
		{0x107, false, 4},
		{0x00c, true, 5},
		{0x10c, false, 5},
		{0x00a, false, 6},
		{0x10a, true, 6},
		{0x00b, true, 7},
		{0x10b, false, 7},
	}
	if len(list) != len(want) {
		t.Fatalf("%d examples, want %d", len(list), len(want))
	}
	fromClient, fromServer := opener{key: pc}, opener{key: ps}
	for i, w := range want {
		m, err := rawDecode(list[i].bytes)
		if err != nil || m.typ != w.typ {
			t.Fatalf("%s: type 0x%04x, want 0x%04x, %v", list[i].name, m.typ, w.typ, err)
		}
		p, err := parse(list[i].bytes)
		if err != nil || len(p.unknown) > 0 || len(p.attrs) != len(m.order) {
			t.Errorf("%s: the package reads %d attributes, %v", list[i].name, len(p.attrs), err)
		}
		for _, a := range p.attrs {
			if !bytes.Equal(a.value, m.attrs[int(a.typ)]) {
				t.Errorf("%s: attribute 0x%04x", list[i].name, a.typ)
			}
		}
		if w.seq == 0 {
			continue
		}
		key, in := keys.server, &fromServer
		if w.client {
			key, in = keys.client, &fromClient
		}
		if !m.signed(key, w.seq) {
			t.Errorf("%s: integrity or sequence is wrong", list[i].name)
		}
		if !in.open(p) {
			t.Errorf("%s: the package does not take it", list[i].name)
		}
	}
	readExamples(t, list)
}

// readExamples has the package read the documents in the examples.
func readExamples(t *testing.T, list []example) {
	t.Helper()
	at := func(i int) *message { m, _ := parse(list[i].bytes); return m }
	s, err := readService(serviceA, at(4).get(attrServiceData))
	if err != nil || s.MaxDIDs != 100 || s.Overlay != DefaultOverlay || s.Name != "Vservice12-ccm18" {
		t.Errorf("vservice %+v, %v", s, err)
	}
	if p, err := readPage(at(6).get(attrServiceData)); err != nil || NewNumbers(p.patterns, p.exclude).Count() != 99 {
		t.Errorf("numbers %+v, %v", p, err)
	}
	if e := at(7).err().(*Error); e.Code != CodeQuota || *e.Quota != (Quota{99, 50}) {
		t.Errorf("error %+v", e)
	}
	if v, err := readVCRs(at(10).get(attrServiceData)); err != nil || len(v) != 1 || v[0] != theVCR {
		t.Errorf("VCRs %+v, %v", v, err)
	}
	n := Notification{Service: serviceA, ID: 7}
	if err := readNotification(Notify, &n, at(12).get(attrServiceData)); err != nil || n.Routes[0].Peer.String() != "514dd001c7553593ebefee2b076ad9d4" {
		t.Errorf("routes %+v, %v", n, err)
	}
}
