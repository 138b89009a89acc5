package vqreport

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"sync/atomic"
	"time"

	"imeproxy/sipalg"
)

const (
	queueLength = 1024
	firstWait   = 500 * time.Millisecond // timer E, doubled up to longestWait
	longestWait = 4 * time.Second
	giveUp      = 32 * time.Second // timer F
)

// Counts tell what came of reports.
type Counts struct {
	Published  uint64 // answered 2xx
	Refused    uint64 // answered otherwise
	Unanswered uint64
	Dropped    uint64 // the queue was full, or the collector's address cannot be reached from here
}

// Publisher sends reports to a collector. Make it with New; Run ends with its context. Safe for concurrent use.
type Publisher struct {
	log *slog.Logger

	first, longest, giveUp time.Duration

	queue     chan publication
	published atomic.Uint64
	refused   atomic.Uint64
	silent    atomic.Uint64
	dropped   atomic.Uint64

	failing bool // the last report was not taken; of the goroutine of Run
}

type publication struct {
	to   netip.AddrPort
	from string
	body []byte
}

// New makes a publisher.
func New(log *slog.Logger) *Publisher {
	return &Publisher{log: log, first: firstWait, longest: longestWait, giveUp: giveUp, queue: make(chan publication, queueLength)}
}

// Publish queues a report for a collector; from is the URI that the appliance has. It never waits.
func (p *Publisher) Publish(to netip.AddrPort, from string, r *Report) {
	body := r.Body()
	if len(body) > maxBody && r.Remote != nil { // rather without the far end's figures than not at all
		short := *r
		short.Remote = nil
		body = short.Body()
	}
	if len(body) > maxBody {
		p.dropped.Add(1)
		return
	}
	select {
	case p.queue <- publication{to, from, body}:
	default:
		p.dropped.Add(1)
	}
}

// Counts so far.
func (p *Publisher) Counts() Counts {
	return Counts{Published: p.published.Load(), Refused: p.refused.Load(), Unanswered: p.silent.Load(), Dropped: p.dropped.Load()}
}

// Run sends what is queued until the context ends.
func (p *Publisher) Run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case x := <-p.queue:
			err := p.send(ctx, x)
			if ctx.Err() != nil {
				return
			}
			if err != nil && !p.failing {
				p.log.Warn("quality report not taken", "collector", x.to.String(), "err", err)
			}
			p.failing = err != nil
		}
	}
}

var errUnanswered = errors.New("no answer")

// send is one non-INVITE client transaction over UDP.
func (p *Publisher) send(ctx context.Context, x publication) error {
	c, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(x.to)) // connected: the kernel takes datagrams of the collector alone
	if err != nil {
		p.dropped.Add(1)
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.SetReadDeadline(time.Unix(1, 0)) })()
	branch, request := publish(x, c.LocalAddr().(*net.UDPAddr).AddrPort())
	buf := make([]byte, 64<<10)
	end := time.Now().Add(p.giveUp)
	for wait := p.first; time.Now().Before(end); wait = min(2*wait, p.longest) {
		if _, err = c.Write(request); err == nil {
			err = c.SetReadDeadline(time.Now().Add(min(wait, time.Until(end))))
		}
		for err == nil && ctx.Err() == nil {
			var n int
			if n, err = c.Read(buf); err != nil {
				break
			}
			status, ok := answer(buf[:n], branch)
			switch {
			case !ok || status < 200:
			case status < 300:
				p.published.Add(1)
				return nil
			default:
				p.refused.Add(1)
				return fmt.Errorf("answered %d", status)
			}
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		var timeout net.Error
		if !errors.As(err, &timeout) || !timeout.Timeout() { // such as port unreachable
			break
		}
	}
	p.silent.Add(1)
	return errors.Join(errUnanswered, err)
}

// publish writes the request.
func publish(x publication, local netip.AddrPort) (branch string, request []byte) {
	var b [24]byte
	_, _ = rand.Read(b[:])
	branch = "z9hG4bKvq" + hex.EncodeToString(b[:8])
	via := sipalg.Via{Transport: "UDP", Host: local.Addr().String(), Port: int(local.Port()), Branch: branch, Params: []sipalg.Param{{Name: "branch", Value: branch, HasValue: true}}}
	uri := "sip:" + x.to.String()
	m := sipalg.BuildRequest("PUBLISH", uri, via, "<"+x.from+">;tag="+hex.EncodeToString(b[8:16]), "<"+uri+">", hex.EncodeToString(b[16:])+"@ime", 1, nil,
		sipalg.Header{Name: "Event", Value: "vq-rtcpxr"}, sipalg.Header{Name: "Content-Type", Value: "application/vq-rtcpxr"})
	m.Set("Content-Length", strconv.Itoa(len(x.body)))
	m.Body = x.body
	return branch, m.Bytes()
}

// answer reads a response to the request with a branch.
func answer(b []byte, branch string) (status int, ok bool) {
	m, bad := sipalg.Parse(b)
	if bad != nil || m.IsRequest() {
		return 0, false
	}
	via, err := sipalg.ParseVia(m.Get("Via"))
	if err != nil || via.Branch != branch {
		return 0, false
	}
	return m.Status, true
}
