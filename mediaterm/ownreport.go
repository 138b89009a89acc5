package mediaterm

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"time"

	"github.com/pion/rtcp"
	"golang.org/x/sys/unix"
)

// VoIP is what a report of our own tells of a stream from the outside, beside what its relay knows (RFC 3611 section 4.7). Of a
// negative figure the report says that it is not known.
type VoIP struct {
	Loss                     float64 // 0 to 1, since the beginning
	BurstDensity, GapDensity float64 // 0 to 1: the share lost in bursts and between them
	BurstLength, GapLength   time.Duration
	R, MOSLQ, MOSCQ          float64
}

// ErrNoReport says that there is nothing to report, or that a report cannot go anywhere now.
var ErrNoReport = errors.New("no report: nothing was heard, RTCP is off, or there is no way or key to the far end")

// Reporter tells the far end outside what arrives of its sound (RFC 3550 section 6.4, RFC 3611): a receiver that sends nothing, with an
// SSRC and a name of its own, since the end inside may send reports too. Not for concurrent use.
type Reporter struct {
	stream *Stream
	ssrc   uint32
	name   string

	about          uint32 // the SSRC of the report before
	expected, lost uint64 // as it had them
}

// NewReporter makes the reporter of a stream. Its name is random (RFC 7022 section 4.2): it must tell nothing of the inside.
func NewReporter(s *Stream) *Reporter {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return &Reporter{stream: s, ssrc: binary.BigEndian.Uint32(b[:]), name: hex.EncodeToString(b[4:])}
}

// Send sends a report. Its receiver report block is left out while the end inside sends reports itself: two different ones
// about one stream would confuse those who read them.
func (r *Reporter) Send(v VoIP, now time.Time) error {
	return r.stream.eng.Report(func(w *reportView) []byte { return r.compound(v, w, now) }, r.ssrc)
}

// reportView is what a relay knows of the sound from the outside.
type reportView struct {
	reception // of the SSRC that is heard now
	hz        uint32
	inside    bool // the end inside sends reports
	trip      FarReport
	sender    senderTime // the far end's last sender report
}

// compound writes a receiver report, a description and an extended report (RFC 3550 section 6.1).
func (r *Reporter) compound(v VoIP, w *reportView, now time.Time) []byte {
	rr := &rtcp.ReceiverReport{SSRC: r.ssrc}
	if !w.inside {
		rr.Reports = []rtcp.ReceptionReport{r.block(w, now)}
	}
	fraction := func(f float64) uint8 { return uint8(min(255, max(0, f)*256)) }
	ms := func(d time.Duration) uint16 { return uint16(min(math.MaxUint16, d.Milliseconds())) }
	whole := func(f float64) uint8 { return uint8(min(127, f+0.5)) }
	const unknown = 127
	xr := &rtcp.VoIPMetricsReportBlock{
		SSRC: w.ssrc, LossRate: fraction(v.Loss), BurstDensity: fraction(v.BurstDensity), GapDensity: fraction(v.GapDensity),
		BurstDuration: ms(v.BurstLength), GapDuration: ms(v.GapLength), SignalLevel: unknown, NoiseLevel: unknown, RERL: unknown,
		Gmin: 16, RFactor: unknown, ExtRFactor: unknown, MOSLQ: unknown, MOSCQ: unknown,
	}
	if w.trip.RoundTrip {
		xr.RoundTripDelay = uint16(min(math.MaxUint16, w.trip.RoundTripMS+0.5))
	}
	if v.R >= 0 {
		xr.RFactor = min(whole(v.R), 100)
	}
	if v.MOSLQ > 0 {
		xr.MOSLQ = whole(10 * v.MOSLQ)
	}
	if v.MOSCQ > 0 {
		xr.MOSCQ = whole(10 * v.MOSCQ)
	}
	data, err := rtcp.Marshal([]rtcp.Packet{rr, rtcp.NewCNAMESourceDescription(r.ssrc, r.name), &rtcp.ExtendedReport{SenderSSRC: r.ssrc, Reports: []rtcp.ReportBlock{xr}}})
	if err != nil { // all of it is ours
		panic(err)
	}
	return data
}

// block is the report of RFC 3550 section 6.4.1 and appendix A.3.
func (r *Reporter) block(w *reportView, now time.Time) rtcp.ReceptionReport {
	expected := uint64(w.highest-w.base) + 1
	lost := w.lost()
	if r.about != w.ssrc || expected < r.expected || lost < r.lost {
		r.about, r.expected, r.lost = w.ssrc, 0, 0
	}
	b := rtcp.ReceptionReport{SSRC: w.ssrc, TotalLost: uint32(min(lost, 1<<23-1)), LastSequenceNumber: w.highest, Jitter: uint32(w.jitter * float64(w.hz))}
	if n := expected - r.expected; n > 0 {
		b.FractionLost = uint8(min(255, (lost-r.lost)*256/n))
	}
	r.expected, r.lost = expected, lost
	if !w.sender.at.IsZero() {
		b.LastSenderReport = w.sender.ntp
		b.Delay = uint32(min(math.MaxUint32, now.Sub(w.sender.at).Seconds()*65536))
	}
	return b
}

// own seals a packet of our own for the leg outside; write makes it, of what was heard there.
func (r *relay) own(write func(*reportView) []byte, ssrc uint32, sc *scratch) (out departure, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := &r.legs[Outside]
	if r.wiped || r.noRTCP || l.mode != modeSecure {
		return departure{}, false
	}
	w := reportView{hz: r.clock(l, l.lastPT), inside: r.legs[Inside].rtcp.heard.packets > 0}
	if x := l.receptions.of(l.lastSSRC); x != nil {
		w.reception = *x
	}
	if l.reporting != nil {
		w.trip = l.reporting.last
		for _, s := range l.reporting.sent {
			if s.at.After(w.sender.at) {
				w.sender = s
			}
		}
	}
	if w.received == 0 {
		return departure{}, false
	}
	ok = r.depart(&out, l, kindRTCP, rtpHeader{ssrc: ssrc}, write(&w), sc)
	return out, ok
}

// Report is for Reporter.
func (s *socketStream) Report(write func(*reportView) []byte, ssrc uint32) error {
	sc := scratches.Get().(*scratch)
	defer scratches.Put(sc)
	out, ok := s.own(write, ssrc, sc)
	if !ok {
		return ErrNoReport
	}
	_, err := s.conns[out.side][out.port].WriteToUDPAddrPort(out.data, out.to)
	s.sent(out, err)
	return err
}

// Report is for Reporter. It is for seconds between packets: it opens a socket for each, since what comes to our ports never gets
// to one, and the worker's are its own.
func (s *tproxyStream) Report(write func(*reportView) []byte, ssrc uint32) error {
	sc := scratches.Get().(*scratch)
	defer scratches.Put(sc)
	out, ok := s.own(write, ssrc, sc)
	if !ok {
		return ErrNoReport
	}
	err := sendOnce(s.localPort(out.side, out.port), out.to, out.data, s.class)
	s.sent(out, err)
	return err
}

// sendOnce spares the runtime's poller, which a socket that only sends does not need: without it a report costs 9 us in place of 15 (BenchmarkSendOnce).
func sendOnce(from, to netip.AddrPort, data []byte, class byte) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("report of our own: %w", err)
	}
	defer unix.Close(fd)
	if class != 0 { // media passes without it too
		_ = unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_TOS, int(class))
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: from.Addr().As4(), Port: int(from.Port())}); err != nil {
		return fmt.Errorf("report of our own from %s: %w", from, err)
	}
	return unix.Sendto(fd, data, 0, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())})
}
