package testbed

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"regexp"
	"runtime"
	"strconv"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// frameRing sends more than frameSocket can: a program in the kernel (BPF_PROG_RUN with live frames, Documentation/bpf/bpf_prog_run.rst) takes
// the frames that user space has finished from memory that both share, each when it is due, and puts them on the wires. A frame costs it 0.6 us of a
// core with all that the far end of the wire does, and a packet socket 2 us and more. It wants its core whole while it runs, as it looks for what is due
// without sleeping: not for what is measured at 50,000 packets/s.
type frameRing struct {
	memory  []byte // numbers, then slots
	program *ebpf.Program
	wires   *ebpf.Map // interfaces by number, which may be of different namespaces
	made    uint64    // frames
}

// Where the numbers are, 64 bits each, and what the slots have: the length of the frame, the number of its wire, the frame.
const (
	ringMade  = 0  // frames that are finished; of user space
	ringTaken = 64 // frames that have been sent; this and what follows is the program's
	ringDue   = 72 // when the next frame is to go: nanoseconds of CLOCK_MONOTONIC by ringScale
	ringStep  = 80 // between two frames, by ringScale
	ringNow   = 88 // the last reading of the clock, by ringScale: what was due then needs no other
	ringHead  = 4096
	ringSlots = 8192 // 10 ms at the highest rates
	ringSlot  = 256
	ringFrame = 8 // where the frame begins

	ringScaleBits = 8 // a step of whole nanoseconds would be one part in a thousand off
	ringScale     = 1 << ringScaleBits
	ringSlotBits  = 8
	ringBatch     = 128 // tries, after which what has been found is put on the wires: half of what a virtual cable's end holds
	ringBegin     = 50 * time.Millisecond
	ringBehind    = time.Millisecond // as mostBehind: here that many packets come 2 or 3 times as fast as the relay can take them
	frameLen      = frameHead - vnetLen + mediaHeader + mediaPayload
)

func newFrameRing(t T) *frameRing {
	t.Helper()
	const size = ringHead + ringSlots*ringSlot
	shared, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: size, MaxEntries: 1, Flags: unix.BPF_F_MMAPABLE})
	if err != nil {
		t.Fatalf("ring of frames (it needs root): %v", err)
	}
	defer shared.Close()
	r := new(frameRing)
	if r.wires, err = ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.DevMap, KeySize: 4, ValueSize: 4, MaxEntries: 2}); err != nil {
		t.Fatalf("wires of the ring of frames: %v", err)
	}
	t.Cleanup(func() { r.wires.Close() })
	if r.memory, err = unix.Mmap(shared.FD(), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		t.Fatalf("memory of the ring of frames: %v", err)
	}
	t.Cleanup(func() { _ = unix.Munmap(r.memory) })
	if r.program, err = ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, License: "MIT", Instructions: sendDue(shared, r.wires)}); err != nil {
		t.Fatalf("program that sends frames: %v", err)
	}
	t.Cleanup(func() { r.program.Close() })
	return r
}

// wire makes a number that of a host's interface.
func (r *frameRing) wire(t T, number uint32, h *Host, name string) {
	t.Helper()
	err := h.Do(func() error {
		l, err := net.InterfaceByName(name)
		if err != nil {
			return err
		}
		return r.wires.Put(number, uint32(l.Index))
	})
	if err != nil {
		t.Fatalf("interface %s of %s: %v", name, h.Name, err)
	}
}

// refusedFrames is the number of frames for which the other end of an interface had no room.
func refusedFrames(t T, h *Host, name string) int {
	t.Helper()
	m := regexp.MustCompile(`tx_queue_0_xdp_xmit_errors: (\d+)`).FindStringSubmatch(h.MustRun(t, "ethtool", "-S", name))
	if m == nil {
		t.Fatalf("interface %s of %s counts no frames that it refused", name, h.Name)
	}
	n, _ := strconv.Atoi(m[1])
	return n
}

func (r *frameRing) number(at int) *uint64 { return (*uint64)(unsafe.Pointer(&r.memory[at])) }

func (r *frameRing) taken() uint64 { return atomic.LoadUint64(r.number(ringTaken)) }

func (r *frameRing) free() int { return ringSlots - int(r.made-r.taken()) }

// put finishes the next frame, whose bytes are for write to fill in and to count. It goes with the next publish.
func (r *frameRing) put(wire uint32, write func(frame []byte) int) {
	slot := r.memory[ringHead+int(r.made%ringSlots)*ringSlot:][:ringSlot]
	n := write(slot[ringFrame:])
	binary.NativeEndian.PutUint32(slot, uint32(n))
	binary.NativeEndian.PutUint32(slot[4:], wire)
	r.made++
}

func (r *frameRing) publish() { atomic.StoreUint64(r.number(ringMade), r.made) }

// pace sets how many frames are sent a second.
func (r *frameRing) pace(rate int) {
	atomic.StoreUint64(r.number(ringStep), uint64(time.Second)*ringScale/uint64(rate))
}

// run sends so many frames a second, from ringBegin on, until the function is called that it returns.
func (r *frameRing) run(rate int) (stop func() error) {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now)
	r.pace(rate)
	*r.number(ringDue) = uint64(now.Nano()+int64(ringBegin)) * ringScale
	thread, done := make(chan int), make(chan error, 1)
	var ended atomic.Bool
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer prefer(ringNice)()
		thread <- unix.Gettid()
		err := error(nil)
		for err == nil && !ended.Load() {
			err = r.call()
		}
		done <- err
	}()
	id := <-thread
	return func() error {
		ended.Store(true)
		for {
			_ = unix.Tgkill(os.Getpid(), id, unix.SIGURG) // which means nothing to a program of Go, but ends the call
			select {
			case err := <-done:
				return err
			case <-time.After(10 * time.Millisecond): // it may have come before the call began
			}
		}
	}
}

// How the two threads of the ring stand to each other and to all else on their core: who fills sleeps most of the time and must not be late then.
const (
	fillNice = -20
	ringNice = -15
)

// prefer gives the thread of the calling goroutine, which is bound to it, a place before others on its core until the function is called that it
// returns.
func prefer(nice int) (undo func()) {
	_ = unix.Setpriority(unix.PRIO_PROCESS, 0, nice)
	return func() { _ = unix.Setpriority(unix.PRIO_PROCESS, 0, 0) }
}

// call runs the program until a signal comes: to end a call takes 25 ms, for its pages are given back then.
func (r *frameRing) call() error {
	const bpfProgTestRun = 10
	page := make([]byte, frameLen)
	attr := struct {
		program, result, in, out                 uint32
		dataIn, dataOut                          uint64
		repeat, duration, contextIn, contextSize uint32
		context, contextOut                      uint64
		flags, cpu, batch, _                     uint32
	}{
		program: uint32(r.program.FD()), in: uint32(len(page)), dataIn: uint64(uintptr(unsafe.Pointer(&page[0]))),
		repeat: 1<<32 - 1, flags: unix.BPF_F_TEST_XDP_LIVE_FRAMES, batch: ringBatch,
	}
	_, _, errno := unix.Syscall(unix.SYS_BPF, bpfProgTestRun, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	runtime.KeepAlive(page)
	if errno != 0 && errno != unix.EINTR {
		return fmt.Errorf("BPF_PROG_RUN with live frames (Linux 5.18): %w", errno)
	}
	return nil
}

// sendDue is the program. It is run for one frame after the other, each of which it turns into the next of the ring or drops, when none is due. What is
// later than ringBehind is not made up for.
func sendDue(shared, wires *ebpf.Map) asm.Instructions {
	const (
		drop          = 1    // XDP_DROP
		data, dataEnd = 0, 4 // of struct xdp_md
	)
	return asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMapValue(asm.R7, shared.FD(), 0),
		asm.LoadMem(asm.R8, asm.R7, ringTaken, asm.DWord),
		asm.LoadMem(asm.R1, asm.R7, ringMade, asm.DWord),
		asm.JEq.Reg(asm.R8, asm.R1, "drop"),

		asm.LoadMem(asm.R0, asm.R7, ringNow, asm.DWord),
		asm.LoadMem(asm.R1, asm.R7, ringDue, asm.DWord),
		asm.JGE.Reg(asm.R0, asm.R1, "due"),
		asm.FnKtimeGetNs.Call(),
		asm.LSh.Imm(asm.R0, ringScaleBits),
		asm.StoreMem(asm.R7, ringNow, asm.R0, asm.DWord),
		asm.LoadMem(asm.R1, asm.R7, ringDue, asm.DWord),
		asm.JLT.Reg(asm.R0, asm.R1, "drop"),
		asm.LoadImm(asm.R2, int64(ringBehind)*ringScale, asm.DWord).WithSymbol("due"),
		asm.Sub.Reg(asm.R0, asm.R2),
		asm.JGE.Reg(asm.R1, asm.R0, "in time"),
		asm.Mov.Reg(asm.R1, asm.R0),
		asm.LoadMem(asm.R2, asm.R7, ringStep, asm.DWord).WithSymbol("in time"),
		asm.Add.Reg(asm.R1, asm.R2),
		asm.StoreMem(asm.R7, ringDue, asm.R1, asm.DWord),

		asm.Mov.Reg(asm.R9, asm.R8),
		asm.And.Imm(asm.R9, ringSlots-1),
		asm.LSh.Imm(asm.R9, ringSlotBits),
		asm.Add.Reg(asm.R9, asm.R7),
		asm.Add.Imm(asm.R9, ringHead),
		asm.Add.Imm(asm.R8, 1),
		asm.StoreMem(asm.R7, ringTaken, asm.R8, asm.DWord),

		asm.LoadMem(asm.R8, asm.R9, 0, asm.Word),
		asm.LoadMem(asm.R1, asm.R6, data, asm.Word),
		asm.LoadMem(asm.R3, asm.R6, dataEnd, asm.Word),
		asm.Sub.Reg(asm.R3, asm.R1),
		asm.JEq.Reg(asm.R3, asm.R8, "fits"),
		asm.Mov.Reg(asm.R2, asm.R8),
		asm.Sub.Reg(asm.R2, asm.R3),
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.FnXdpAdjustTail.Call(),
		asm.JNE.Imm(asm.R0, 0, "drop"),
		asm.JEq.Imm(asm.R8, 0, "drop").WithSymbol("fits"), // for the verifier, as what follows
		asm.JGT.Imm(asm.R8, ringSlot-ringFrame, "drop"),
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.Mov.Imm(asm.R2, 0),
		asm.Mov.Reg(asm.R3, asm.R9),
		asm.Add.Imm(asm.R3, ringFrame),
		asm.Mov.Reg(asm.R4, asm.R8),
		asm.FnXdpStoreBytes.Call(),
		asm.JNE.Imm(asm.R0, 0, "drop"),

		asm.LoadMapPtr(asm.R1, wires.FD()),
		asm.LoadMem(asm.R2, asm.R9, 4, asm.Word),
		asm.Mov.Imm(asm.R3, drop),
		asm.FnRedirectMap.Call(),
		asm.Return(),
		asm.Mov.Imm(asm.R0, drop).WithSymbol("drop"),
		asm.Return(),
	}
}
