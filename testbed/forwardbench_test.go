package testbed

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pion/stun/v3"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// A forwarder is an edge that the enterprise's ordinary traffic passes.
type forwarder struct {
	name string
	lab  *Lab
	seen netip.Addr // the call agent's address as the Internet has it
	next uint16     // destination port of the next new flow
}

const (
	forwardStanding = 400_000 // packets of one flow in a round
	forwardNew      = 20_000  // flows of one packet each in a round
	forwardRounds   = 5
	forwardBatch    = 32
)

// BenchmarkForwarding measures what a packet of ordinary traffic costs on its way from the call agent to a host on the Internet: through a kernel that routes only,
// one that also translates the address by a rule of nft, imeproxy with the guide's configuration, and imeproxy with 10,000 lines of access list before the one that
// permits it. The figures are CPU time of the whole machine a packet, generator included, which is the same for all. Run once: `make bench`.
func BenchmarkForwarding(b *testing.B) {
	router := func() *Lab {
		return Start(b, Options{NoCallAgents: true, A: Side{Edge: EdgeRouter}, B: Side{Edge: EdgeRouter}})
	}
	plain, nat := router(), router()
	nat.A.EdgeHost.MustRun(b, "nft", fmt.Sprintf("add table ip x; add chain ip x p { type nat hook postrouting priority 100; }; add rule ip x p oifname eout ip saddr %s snat to %s; "+
		"add chain ip x f { type filter hook forward priority 0; policy drop; }; add rule ip x f ct state established,related accept; add rule ip x f iifname ein accept", nat.A.UCMIP, nat.A.OutsideIP))
	ours := Start(b, Options{NoCallAgents: true, B: Side{Edge: EdgeRouter}})
	long := Start(b, Options{NoCallAgents: true, B: Side{Edge: EdgeRouter}, A: Side{Config: longList}})
	forwarders := []*forwarder{
		{name: "kernel router", lab: plain, seen: plain.A.UCMIP}, {name: "kernel router with NAT (nft)", lab: nat, seen: nat.A.OutsideIP}, {name: "imeproxy, NAT", lab: ours, seen: ours.A.Mapped}, {name: "imeproxy, NAT, 10,000 lines", lab: long, seen: long.A.Mapped},
	}
	for _, f := range forwarders {
		f.next = 1000
		f.lab.Outsider.MustRun(b, "nft", "add table ip sink; add chain ip sink in { type filter hook prerouting priority -300; }; add counter ip sink got; "+
			"add rule ip sink in udp dport 9-65535 counter name got drop")
	}
	samples := map[string][]float64{}
	for round := range forwardRounds {
		for _, f := range forwarders {
			for _, x := range []struct {
				what string
				n    int
				same bool
			}{{"standing", forwardStanding, true}, {"new", forwardNew, false}} {
				us := f.cost(b, x.n, x.same)
				samples[f.name+" "+x.what] = append(samples[f.name+" "+x.what], us)
				b.Logf("round %d, %s, %s flow: %.2f us", round+1, f.name, x.what, us)
			}
		}
	}
	type figures struct {
		Standing float64 `json:"standing_us"`
		New      float64 `json:"new_us"`
	}
	out := map[string]figures{}
	fmt.Println("\n| forwarder | packet of a standing flow | of the kernel router's | first packet of a flow | of the kernel router's |")
	fmt.Println("| --- | --- | --- | --- | --- |")
	first := figures{}
	for i, f := range forwarders {
		x := figures{median(samples[f.name+" standing"]), median(samples[f.name+" new"])}
		if out[f.name] = x; i == 0 {
			first = x
		}
		fmt.Printf("| %s | %.2f us | %.2f | %.2f us | %.2f |\n", f.name, x.Standing, x.Standing/first.Standing, x.New, x.New/first.New)
	}
	data, err := json.MarshalIndent(out, "", "  ")
	if err != nil {
		b.Fatal(err)
	}
	writeBench(b, "forwarding.json", append(data, '\n'))
}

// longList puts 10,000 lines about other hosts before the one that permits all.
func longList(text string) string {
	var lines strings.Builder
	for n := range 10_000 {
		fmt.Fprintf(&lines, "access-list long extended deny udp host 192.168.10.30 host 203.%d.%d.%d eq %d\n", n>>16, n>>8&255, n&255, 1+n%60000)
	}
	return text + lines.String() + "access-list long extended permit ip any any\naccess-group long in interface inside\n"
}

// cost sends packets of one flow, or of as many flows, and gives microseconds of CPU a packet.
func (f *forwarder) cost(b *testing.B, n int, same bool) float64 {
	b.Helper()
	port := 20000 + int(f.next)%20000
	conn, err := f.lab.A.UCMHost.ListenUDP(f.lab.A.UCMIP.String() + ":" + strconv.Itoa(port))
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before := f.arrived(b)
	batch := make([]ipv4.Message, forwardBatch)
	to := make([]net.UDPAddr, forwardBatch)
	for i := range batch {
		to[i] = net.UDPAddr{IP: f.lab.OutsiderIP.AsSlice(), Port: 9}
		batch[i] = ipv4.Message{Buffers: [][]byte{make([]byte, 172)}, Addr: &to[i]}
	}
	p := ipv4.NewPacketConn(conn)
	if same {
		f.answered(b, conn, p, batch[:1], port)
		before++
	}
	begin := busy(b)
	for sent := 0; sent < n; {
		if !same {
			for i := range to {
				if f.next++; f.next < 1000 {
					f.next = 1000
				}
				to[i].Port = int(f.next)
			}
		}
		k, err := p.WriteBatch(batch[:min(forwardBatch, n-sent)], 0)
		if err != nil {
			b.Fatal(err)
		}
		sent += k
	}
	// Forwarding is done in the sender's time; what is left over is little.
	Until(b, wait, f.name+": the packets arrive", func() bool { return f.arrived(b)-before >= n })
	return float64((busy(b) - begin).Microseconds()) / float64(n)
}

// answered makes a flow one that has packets both ways: the first of it goes, and one comes back.
func (f *forwarder) answered(b *testing.B, conn *net.UDPConn, p *ipv4.PacketConn, first []ipv4.Message, port int) {
	b.Helper()
	if _, err := p.WriteBatch(first, 0); err != nil {
		b.Fatal(err)
	}
	back, err := f.lab.Outsider.ListenUDP(f.lab.OutsiderIP.String() + ":9")
	if err != nil {
		b.Fatal(err)
	}
	defer back.Close()
	if _, err := back.WriteToUDPAddrPort([]byte("x"), netip.AddrPortFrom(f.seen, uint16(port))); err != nil {
		b.Fatal(err)
	}
	// Not by a read: the runtime would wait for the socket from then on, and wake for each packet that has left.
	rc, err := conn.SyscallConn()
	if err != nil {
		b.Fatal(err)
	}
	came := 0
	if err := rc.Control(func(fd uintptr) {
		came, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(wait.Milliseconds()))
	}); err != nil || came != 1 {
		b.Fatalf("%s: no answer comes back: %v", f.name, err)
	}
}

var countedPackets = regexp.MustCompile(`packets (\d+)`)

// arrived counts what has come to the host on the Internet.
func (f *forwarder) arrived(b *testing.B) int {
	b.Helper()
	m := countedPackets.FindStringSubmatch(f.lab.Outsider.MustRun(b, "nft", "list", "counter", "ip", "sink", "got"))
	if m == nil {
		b.Fatal("no counter")
	}
	n, _ := strconv.Atoi(m[1])
	return n
}

// busy is the CPU time of the machine that was not idle, in ticks of 10 ms.
func busy(b *testing.B) (total time.Duration) {
	b.Helper()
	line, _, _ := strings.Cut(readAll("/proc/stat"), "\n")
	for i, v := range strings.Fields(line)[1:] {
		if i == 3 || i == 4 || i > 6 { // idle, iowait; stolen and guests' time
			continue
		}
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		total += time.Duration(n) * 10 * time.Millisecond
	}
	return total
}

// BenchmarkMappingService measures how many mappings a second the running daemon gives a call agent: new ones, and 10,000 live ones asked for again, each answer
// checked. Run once: `make bench`.
func BenchmarkMappingService(b *testing.B) {
	const live, again = 10_000, 40_000
	s := StartStubs(b)
	s.mustReload(b, s.withMappings(b, " mapping-service quota 10000\n"))
	c := s.mappingDial(b)
	target := func(i int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(1 + i/200)}), uint16(5000+i%200))
	}
	ports := make([]netip.AddrPort, live)
	ask := func(n int, check func(i int, mapped netip.AddrPort)) (rate, us float64) {
		cpu := cpuOf(b, s.Proxy.Process().Pid())
		begin := time.Now()
		c.pipeline(b, n, func(i int) netip.AddrPort { return target(i % live) }, check)
		took := time.Since(begin)
		return float64(n) / took.Seconds(), float64(cpuOf(b, s.Proxy.Process().Pid())-cpu) / 1000 / float64(n)
	}
	used := map[netip.AddrPort]bool{}
	newRate, newCPU := ask(live, func(i int, m netip.AddrPort) {
		if used[m] {
			b.Fatalf("%s is given to two targets", m)
		}
		used[m], ports[i] = true, m
	})
	rate, cpu := ask(again, func(i int, m netip.AddrPort) {
		if ports[i%live] != m {
			b.Fatalf("target %d: %s, was %s", i%live, m, ports[i%live])
		}
	})
	fmt.Println("\n| mapping service, one connection, pipelined | requests/s | daemon's CPU a request | requests/s of one core |")
	fmt.Println("| --- | --- | --- | --- |")
	fmt.Printf("| 10,000 new mappings | %.0f | %.1f us | %.0f |\n", newRate, newCPU, 1e6/newCPU)
	fmt.Printf("| 40,000 requests for 10,000 live ones | %.0f | %.1f us | %.0f |\n", rate, cpu, 1e6/cpu)
	data, _ := json.MarshalIndent(map[string]float64{"new_per_second": newRate, "new_us": newCPU, "live_per_second": rate, "live_us": cpu}, "", "  ")
	writeBench(b, "mapping.json", append(data, '\n'))
}

// pipeline sends requests without waiting for the answers, 50 at a time, and checks each answer.
func (c mappingClient) pipeline(b *testing.B, n int, target func(int) netip.AddrPort, check func(int, netip.AddrPort)) {
	b.Helper()
	const window = 50
	for first := 0; first < n; first += window {
		var all []byte
		for i := first; i < min(first+window, n); i++ {
			m, err := stun.Build(stun.NewTransactionIDSetter(transactionOf(i)), stun.NewType(0x00f, stun.ClassRequest), peerAddress(target(i)), stun.Fingerprint)
			if err != nil {
				b.Fatal(err)
			}
			all = append(all, m.Raw...)
		}
		_ = c.SetDeadline(time.Now().Add(wait))
		if _, err := c.Write(all); err != nil {
			b.Fatal(err)
		}
		for i := first; i < min(first+window, n); i++ {
			mapped, id, code := c.answer(b)
			if code != 0 || id != transactionOf(i) {
				b.Fatalf("request %d: code %d, transaction %x", i, code, id)
			}
			check(i, mapped)
		}
	}
}

func transactionOf(i int) (id [stun.TransactionIDSize]byte) {
	binary.BigEndian.PutUint64(id[:], uint64(i))
	return id
}
