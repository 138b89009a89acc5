package observe

import (
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"imeproxy/proxy/backlog"
)

// busyLog is a log to a file in whose time many lines come.
func busyLog(b *testing.B) (*slog.Logger, func()) {
	f, err := os.Create(filepath.Join(b.TempDir(), "log"))
	if err != nil {
		b.Fatal(err)
	}
	file, err := backlog.Open(b.TempDir(), "log", 1, maxGather)
	if err != nil {
		b.Fatal(err)
	}
	g := NewGatherer(f, file)
	log, err := NewLogger(g, LogConfig{})
	if err != nil {
		b.Fatal(err)
	}
	return log, func() { g.Close(); f.Close() }
}

// What a line of a busy time costs: most of it is its text.
func BenchmarkBusyLine(b *testing.B) {
	log, done := busyLog(b)
	defer done()
	b.ReportAllocs()
	for b.Loop() {
		Info(log, "call ended", CallID("3848276298220188511@atlanta.example.com"), slog.String("reason", "bye"), slog.String("by", "outside"),
			slog.Int("status", 0), slog.Duration("duration", 61*time.Second), slog.Uint64("sent", 3050), slog.Uint64("received", 3049))
	}
}

// What passes a line on in a busy time costs.
func BenchmarkGatheredLine(b *testing.B) {
	f, err := os.Create(filepath.Join(b.TempDir(), "log"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	file, err := backlog.Open(b.TempDir(), "log", 1, maxGather)
	if err != nil {
		b.Fatal(err)
	}
	g := NewGatherer(f, file)
	defer g.Close()
	line := make([]byte, 220)
	line[219] = '\n'
	b.ReportAllocs()
	for b.Loop() {
		_, _ = g.Write(line)
	}
}

// cpu is what this process has taken so far.
func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// What a call record costs in all, 300 of them to a beat: its text and its share of a write.
func BenchmarkBusyRecord(b *testing.B) {
	w, err := NewRecordWriter(RecordConfig{File: filepath.Join(b.TempDir(), "calls.json"), StateDir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer w.Close()
	lost, jitter := uint64(2), 1.5
	r := CallRecord{
		CallID: "3848276298220188511@atlanta.example.com", SessionID: "7", Direction: "inbound", From: "+14085550100", To: "+14085550101", LocalDomain: "a.example",
		PeerDomain: "b.example", Peer: "209.165.200.225:5060", TicketID: "00ff00ff", Ticket: "ok", Setup: noon, Connect: noon, End: noon, EndReason: "bye", EndSide: SideOutside,
		TLSVersion: "TLS 1.3", CipherSuite: "TLS_AES_128_GCM_SHA256",
		Media: []MediaRecord{{Kind: "audio", Codec: "PCMU", OutsideSuite: "AEAD_AES_128_GCM", OutsideSent: 3000, OutsideReceived: 2999, LostOutside: &lost, JitterOutsideMS: &jitter}},
	}
	b.ReportAllocs()
	before := cpu()
	for n := 0; b.Loop(); n++ {
		w.Write(r)
		if n%300 == 299 {
			time.Sleep(ToBeat())
		}
	}
	b.ReportMetric(float64(cpu()-before)/float64(b.N), "cpu-ns/op")
	if w.Dropped() > 0 {
		b.Fatalf("%d records were dropped", w.Dropped())
	}
}
