package mediaterm

import (
	"net"
	"net/netip"
	"testing"
)

// What a report of our own costs to send under engines whose sockets belong to the workers, and what that is with 5,000 calls of one audio line, each told of
// every 5 s.
func BenchmarkSendOnce(b *testing.B) {
	sink, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		b.Fatal(err)
	}
	defer sink.Close()
	free, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		b.Fatal(err)
	}
	from := free.LocalAddr().(*net.UDPAddr).AddrPort()
	free.Close()
	to, data := sink.LocalAddr().(*net.UDPAddr).AddrPort(), make([]byte, 140)
	for b.Loop() {
		if err := sendOnce(from, to, data, 0); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)*1000/1e9*100, "%core-at-5000-calls")
}
