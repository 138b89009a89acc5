package testbed

import (
	"math"
	"net"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
)

// farEnd counts the packets that arrive at an end of the media benchmark and lets one of so many through to the socket: what a far end does with
// a packet runs in the context of who sends, here the relay, and is no part of what is to be measured. A rule of nft that does the same takes
// 0.3 us of it.
type farEnd struct {
	counter, mask *ebpf.Map // one 64-bit number each
	hook          link.Link
}

// What the program does with a packet.
const (
	tcxNext = -1 // as if the program were not there
	tcxDrop = 2
)

// newFarEnd counts the UDP datagrams that come to a port by a link, until the test ends.
func newFarEnd(t T, h *Host, name string, port uint16) *farEnd {
	t.Helper()
	number := func() *ebpf.Map {
		m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
		if err != nil {
			t.Fatalf("counter of arriving packets (it needs root): %v", err)
		}
		t.Cleanup(func() { m.Close() })
		return m
	}
	f := &farEnd{counter: number(), mask: number()}
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "MIT", Instructions: countUDP(f, port)})
	if err != nil {
		t.Fatalf("program that counts arriving packets: %v", err)
	}
	defer program.Close()
	err = h.Do(func() error {
		l, err := net.InterfaceByName(name)
		if err != nil {
			return err
		}
		f.hook, err = link.AttachTCX(link.TCXOptions{Interface: l.Index, Program: program, Attach: ebpf.AttachTCXIngress})
		return err
	})
	if err != nil {
		t.Fatalf("interface %s of %s: %v", name, h.Name, err)
	}
	t.Cleanup(func() { f.hook.Close() })
	return f
}

// sample lets one packet of so many through, a power of two.
func (f *farEnd) sample(t T, of int) {
	t.Helper()
	if err := f.mask.Put(uint32(0), uint64(of-1)); err != nil {
		t.Fatalf("sample of arriving packets: %v", err)
	}
}

// came is the number of packets that have arrived.
func (f *farEnd) came(t T) int64 {
	t.Helper()
	var n uint64
	if err := f.counter.Lookup(uint32(0), &n); err != nil {
		t.Fatalf("counter of arriving packets: %v", err)
	}
	return int64(n)
}

// countUDP is the program. Offsets of struct __sk_buff, then of a frame whose IPv4 header has no options.
func countUDP(f *farEnd, port uint16) asm.Instructions {
	const (
		data, dataEnd          = 76, 80
		etherType, proto, dest = 12, 23, 36
		enough                 = 42
		ipv4, udp              = 0x0008, 17 // as a little endian host reads it
	)
	return asm.Instructions{
		asm.LoadMem(asm.R2, asm.R1, data, asm.Word),
		asm.LoadMem(asm.R3, asm.R1, dataEnd, asm.Word),
		asm.Mov.Reg(asm.R4, asm.R2),
		asm.Add.Imm(asm.R4, enough),
		asm.JGT.Reg(asm.R4, asm.R3, "next"),
		asm.LoadMem(asm.R4, asm.R2, etherType, asm.Half),
		asm.JNE.Imm(asm.R4, ipv4, "next"),
		asm.LoadMem(asm.R4, asm.R2, proto, asm.Byte),
		asm.JNE.Imm(asm.R4, udp, "next"),
		asm.LoadMem(asm.R4, asm.R2, dest, asm.Half),
		asm.JNE.Imm(asm.R4, int32(port>>8|port<<8&math.MaxUint16), "next"),
		asm.LoadMapValue(asm.R1, f.counter.FD(), 0),
		asm.Mov.Imm(asm.R2, 1),
		asm.AddAtomic.Mem(asm.R1, asm.R2, asm.DWord, 0),
		asm.LoadMem(asm.R2, asm.R1, 0, asm.DWord),
		asm.LoadMapValue(asm.R1, f.mask.FD(), 0),
		asm.LoadMem(asm.R1, asm.R1, 0, asm.DWord),
		asm.And.Reg(asm.R2, asm.R1),
		asm.JEq.Imm(asm.R2, 0, "next"),
		asm.Mov.Imm(asm.R0, tcxDrop),
		asm.Return(),
		asm.Mov.Imm(asm.R0, tcxNext).WithSymbol("next"),
		asm.Return(),
	}
}
