package testbed

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/pion/srtp/v3"
)

// mediaRelay is what is measured: a program with calls that stand, each one stream between a phone and a far end with SRTP.
type mediaRelay struct {
	name               string
	lab                *Lab
	process            *Process
	idle               int64                  // bytes of memory before the calls
	state              func() string          // what the relay tells of itself; nil: nothing
	command            func(t T, line string) // in mode media-termination; nil: there is no such thing
	comeAndGo          func(t T)              // a call of many streams; with command
	call               func(t T, n int)       // sets the nth call up
	parallel           int                    // calls that are set up at a time
	mu                 sync.Mutex             // guards the streams of both while calls are set up
	protect, unprotect *mediaLoad
	ring               *frameRing // for both, whose wires are their numbers
}

// pinProcess keeps a program on core 1; the load works on core 0.
func pinProcess(t T, pid int) {
	t.Helper()
	if _, err := run(exec.CommandContext, "taskset", "-a", "-p", "2", strconv.Itoa(pid)); err != nil {
		t.Fatalf("%v", err)
	}
}

// cpu is what all threads of a process have run, in nanoseconds.
func cpuOf(t T, pid int) int64 {
	t.Helper()
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	sum := int64(0)
	for _, f := range files {
		n, err := strconv.ParseInt(strings.Fields(readAll(f) + " 0")[0], 10, 64)
		if err == nil {
			sum += n
		}
	}
	if sum == 0 {
		t.Fatalf("no time of process %d: %v, %s", pid, files, readAll(fmt.Sprintf("/proc/%d/stat", pid)))
	}
	return sum
}

// alone stops the programs of the others until it is another's turn, or the test ends: what they do for calls without media, they would do on the
// core of the one that is measured.
func alone(t T, all []*mediaRelay, one *mediaRelay) {
	t.Helper()
	for _, r := range all {
		s := syscall.SIGSTOP
		if r == one {
			s = syscall.SIGCONT
		}
		r.process.Signal(s)
		t.Cleanup(func() { r.process.Signal(syscall.SIGCONT) })
	}
}

func memoryOf(t T, pid int) int64 {
	t.Helper()
	u, err := usageOf(pid)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return u.Memory
}

// newLoads opens the two ends; all streams share them.
func (r *mediaRelay) newLoads(t T) {
	t.Helper()
	a, b := r.lab.A, r.lab.B
	phone, far := netip.AddrPortFrom(a.PhoneIP, 4000), netip.AddrPortFrom(b.MediaOut, 20000)
	r.protect = &mediaLoad{
		out: newFrameSocket(t, a.PhoneHost, "eth0", phone, a.MediaIn), in: newBatchSocket(t, b.EdgeHost, far),
		end: newFarEnd(t, b.EdgeHost, "ea", far.Port()), bySSRC: make(map[uint32]*mediaStream),
	}
	r.unprotect = &mediaLoad{
		out: newFrameSocket(t, b.EdgeHost, "ea", far, a.MediaOut), in: newBatchSocket(t, a.PhoneHost, phone),
		end: newFarEnd(t, a.PhoneHost, "eth0", phone.Port()), bySSRC: make(map[uint32]*mediaStream),
	}
	r.sample(t, sampleCost)
	r.ring = newFrameRing(t)
	for wire, end := range r.senders() {
		r.ring.wire(t, uint32(wire), end.host, end.link)
	}
}

// benchEnd is an interface of the load.
type benchEnd struct {
	host *Host
	link string
}

// senders are those that protect and unprotect send from.
func (r *mediaRelay) senders() [2]benchEnd {
	return [2]benchEnd{{r.lab.A.PhoneHost, "eth0"}, {r.lab.B.EdgeHost, "ea"}}
}

// sample lets one packet of so many through to the sockets of the two ends.
func (r *mediaRelay) sample(t T, of int) {
	t.Helper()
	for _, l := range []*mediaLoad{r.protect, r.unprotect} {
		l.end.sample(t, of)
	}
}

// add takes a call that stands into the loads. relayKey is what the relay protects with, farKey what the far end does.
func (r *mediaRelay) add(t T, inside, outside netip.AddrPort, relayKey, farKey StubCrypto) {
	t.Helper()
	mk := func(c StubCrypto) *srtp.Context {
		p := srtpProfiles[c.Suite]
		ctx, err := srtp.CreateContext(c.Key[:p.key], c.Key[p.key:], p.profile)
		if err != nil {
			t.Fatalf("%v", err)
		}
		return ctx
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	n := uint32(len(r.protect.streams))
	p := &mediaStream{to: inside, ssrc: 0x1000_0000 + n, open: mk(relayKey)}
	u := &mediaStream{to: outside, ssrc: 0x2000_0000 + n, seal: mk(farKey)}
	r.protect.streams, r.unprotect.streams = append(r.protect.streams, p), append(r.unprotect.streams, u)
	r.protect.bySSRC[p.ssrc], r.unprotect.bySSRC[u.ssrc] = p, u
}

// fill sets calls up until so many stand.
func (r *mediaRelay) fill(t T, calls int) {
	t.Helper()
	var setups sync.WaitGroup
	stand := len(r.protect.streams)
	for i := range r.parallel {
		setups.Go(func() {
			for n := stand + i; n < calls; n += r.parallel {
				r.call(t, n)
			}
		})
	}
	setups.Wait()
}

// imeproxyRelay is the daemon with calls that SIP set up.
func imeproxyRelay(t T, calls int) *mediaRelay {
	s := StartStubs(t, func(o *Options) { o.Direct, o.A.Core = true, "1" })
	r := &mediaRelay{name: "imeproxy", lab: s.Lab, process: s.Proxy.Process(), state: func() string { out, _ := s.Proxy.Shell("show media-termination"); return out }}
	r.command = func(t T, line string) {
		t.Helper()
		if out, err := Imeproxy("shell", "--control", s.Proxy.Control, "-c", "configure terminal", "-c", "media-termination uc-ime-media-term", "-c", line); err != nil {
			t.Fatalf("%s: %v: %s", line, err, out)
		}
	}
	pid := s.Proxy.Process().Pid()
	pinProcess(t, pid)
	r.newLoads(t)
	s.Agent.OnMessage = ReqIs("REFER") // the calls are silent between the runs, and thousands of requests to fall back would be looked through for each message that is waited for
	conn := s.AgentDial(t)
	r.comeAndGo = func(t T) {
		t.Helper()
		s.comeAndGo(t, conn)
	}
	r.idle = memoryOf(t, pid)
	r.parallel = 50 // the stubs look for messages every 20 ms: one after the other would take minutes
	r.call = func(t T, _ int) {
		t.Helper()
		r.setUp(t, s, conn)
	}
	r.fill(t, calls)
	return r
}

// setUp sets up one call of the call agent.
func (r *mediaRelay) setUp(t T, s *StubLab, conn *StubConn) {
	t.Helper()
	agent := s.Outbound(conn)
	inv := agent.Request(t, "INVITE", sdp(plainOffer(s.A.PhoneIP.String(), 4000)))
	seen := s.Far.Expect(t, InCall(agent.CallID, ReqIs("INVITE")), wait)
	ours := CryptoOf(t, seen.Body, srtpSuites[0])
	key := NewStubCrypto(ours.Tag, srtpSuites[0])
	far := s.Far.AnswerLeg(seen)
	far.Respond(t, seen, 200, "OK", sdp(secureOffer(s.B.MediaOut.String(), 20000, key.Line())))
	ok := agent.AwaitStatus(t, inv, 200)
	agent.Learn(ok)
	agent.Ack(t)
	far.Expect(t, "ACK")
	r.add(t, MediaLines(t, ok.Body)[0], MediaLines(t, seen.Body)[0], ours, key)
}

// rtpengineRelay is Debian's rtpengine with calls that its control protocol set up.
func rtpengineRelay(t T, calls int) *mediaRelay {
	l := Start(t, Options{NoCallAgents: true, NoStart: true, Direct: true, A: Side{Edge: EdgeRouter}, B: Side{Edge: EdgeRouter}})
	e := l.A
	p, err := e.EdgeHost.Start("rtpengine", StartOptions{}, "taskset", "-c", "1", "rtpengine", "--config-file=none", "--foreground",
		fmt.Sprintf("--interface=inside/%s", e.MediaIn), fmt.Sprintf("--interface=outside/%s", e.MediaOut),
		"--listen-ng="+e.InsideIP.String()+":2223", "--table=-1", "--port-min=16384", "--port-max=32767", "--num-threads=1", "--timeout=3600", "--silent-timeout=3600", "--log-stderr", "--log-level=3")
	if err != nil {
		t.Fatalf("%v", err)
	}
	l.track(p)
	l.onClose(func() { p.Stop(15, 5*time.Second) })
	Until(t, 20*time.Second, "rtpengine listens", func() bool {
		out, err := e.EdgeHost.Run("ss", "-Hlun", "sport", "=", ":2223")
		return err == nil && strings.Contains(out, ":2223")
	})
	r := &mediaRelay{name: "rtpengine", lab: l, process: p}
	pinProcess(t, p.Pid())
	r.newLoads(t)
	control, err := e.EdgeHost.Dial("udp", "", e.InsideIP.String()+":2223", wait)
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() { control.Close() })
	r.idle = memoryOf(t, p.Pid())
	r.parallel = 1
	r.call = func(t T, n int) {
		t.Helper()
		id := fmt.Sprintf("call-%d", n)
		offered := askRTPEngine(t, control, "offer", id, plainOffer(e.PhoneIP.String(), 4000), "3:ICE6:remove4:DTLS3:off18:transport-protocol8:RTP/SAVP9:directionl6:inside7:outsidee8:from-tag1:a")
		ours := CryptoOf(t, offered, srtpSuites[0])
		key := NewStubCrypto(ours.Tag, srtpSuites[0])
		answered := askRTPEngine(t, control, "answer", id, secureOffer(l.B.MediaOut.String(), 20000, key.Line()), "3:ICE6:remove8:from-tag1:a6:to-tag1:b")
		r.add(t, MediaLines(t, answered)[0], MediaLines(t, offered)[0], ours, key)
	}
	r.fill(t, calls)
	return r
}

// askRTPEngine sends a command of rtpengine's control protocol ("ng": a cookie, then bencode) and gives the description that comes back.
// more are further keys and values in bencode.
func askRTPEngine(t T, c net.Conn, command, id, sdp, more string) string {
	t.Helper()
	str := func(s string) string { return fmt.Sprintf("%d:%s", len(s), s) }
	text := id + command + " d" + str("command") + str(command) + str("call-id") + str(id) + str("sdp") + str(sdp) + more + "e"
	c.SetDeadline(time.Now().Add(wait))
	if _, err := c.Write([]byte(text)); err != nil {
		t.Fatalf("%v", err)
	}
	buf := make([]byte, 64<<10)
	n, err := c.Read(buf)
	if err != nil {
		t.Fatalf("rtpengine: %v", err)
	}
	_, rest, ok := strings.Cut(string(buf[:n]), "3:sdp")
	length, body, ok2 := strings.Cut(rest, ":")
	size, err := strconv.Atoi(length)
	if !ok || !ok2 || err != nil || size > len(body) {
		t.Fatalf("rtpengine answers %s", buf[:n])
	}
	return body[:size]
}

// writeBench keeps a result for others to read.
func writeBench(t T, name string, data []byte) {
	t.Helper()
	dir := filepath.Join(Root(), "build", "bench")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatalf("%v", err)
	}
	writeFile(t, filepath.Join(dir, name), string(data))
}
