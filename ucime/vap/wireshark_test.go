package vap

import (
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// capture writes the messages as a capture of raw IPv4 with one TCP connection to port 5620; fromClient tells their direction.
func capture(t *testing.T, list []example, fromClient func(int) bool) string {
	t.Helper()
	le, be := binary.LittleEndian, binary.BigEndian
	out := []byte{0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 101, 0, 0, 0}
	next := map[bool]uint32{true: 1, false: 1}
	for i, m := range list {
		c := fromClient(i)
		ports, addresses := []byte{0x9c, 0x40, 0x15, 0xf4}, []byte{10, 0, 0, 1, 10, 0, 0, 2}
		if !c {
			ports, addresses = []byte{0x15, 0xf4, 0x9c, 0x40}, []byte{10, 0, 0, 2, 10, 0, 0, 1}
		}
		ip := append([]byte{0x45, 0, 0, 0, 0, 0, 0, 0, 64, 6, 0, 0}, addresses...)
		be.PutUint16(ip[2:], uint16(40+len(m.bytes)))
		tcp := be.AppendUint32(be.AppendUint32(ports, next[c]), next[!c])
		tcp = append(tcp, 0x50, 0x18, 0xff, 0xff, 0, 0, 0, 0)
		packet := append(append(ip, tcp...), m.bytes...)
		next[c] += uint32(len(m.bytes))
		out = append(out, make([]byte, 8)...) // the time
		out = le.AppendUint32(le.AppendUint32(out, uint32(len(packet))), uint32(len(packet)))
		out = append(out, packet...)
	}
	name := filepath.Join(t.TempDir(), "vap.pcap")
	if err := os.WriteFile(name, out, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// Wireshark's dissector of XMCP, which VAP's framing is that of, reads the document's examples.
func TestWiresharkReadsTheExamples(t *testing.T) {
	_, list := examples(t)
	file := capture(t, list, func(i int) bool {
		m, err := rawDecode(list[i].bytes)
		if err != nil {
			t.Fatal(err)
		}
		return (m.typ&0x100 == 0) != (m.typ&0xf == 0xa) // Notify alone is asked by the server
	})
	out, err := exec.CommandContext(within(t), "tshark", "-r", file, "-d", "tcp.port==5620,xmcp").Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	const id = "38343537-6263-6435-0000-000000000000"
	want := []string{
		`Register Request, user "vapuser", name "node1"`, "Register Error Response, error 401 (Unauthorized)", `Register Request, user "vapuser", name "node1"`,
		"Register Success Response, handle 1", "Publish Request, handle 1, service 101:0:" + id, "Publish Success Response, service 101:0:" + id,
		"Publish Request, handle 1, service 100:0:" + id, "Publish Error Response, error 481", "Subscribe Request, handle 1, service 100:0:" + id,
		"Subscribe Success Response, subscription 1", "Request, handle 1, service 100:0:" + id, "Success Response", // UploadVCR is ours alone
		"Notify Request, subscription 1, service 100:0:" + id, "Notify Success Response", "Keepalive Request, handle 1", "Keepalive Success Response",
	}
	if len(lines) != len(want) {
		t.Fatalf("%d lines:\n%s", len(lines), out)
	}
	for i, w := range want {
		if !strings.Contains(lines[i], "XMCP") || !strings.Contains(lines[i], w) || strings.Contains(lines[i], "alformed") {
			t.Errorf("got  %s\nwant %s", lines[i], w)
		}
	}
}
