package observe

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Who ended a call.
const (
	SideInside  = "inside"
	SideOutside = "outside"
	SideProxy   = "proxy"
)

// CallRecord tells the story of one call in one JSON line, written when the call ends. Zero times are left out.
type CallRecord struct {
	CallID       string        `json:"call_id"`
	SessionID    string        `json:"session_id,omitempty"`
	Direction    string        `json:"direction"` // "inbound", "outbound"
	From         string        `json:"from"`      // user part
	To           string        `json:"to"`        // user part of the Request-URI
	LocalDomain  string        `json:"local_domain,omitempty"`
	PeerDomain   string        `json:"peer_domain,omitempty"`
	Peer         string        `json:"peer,omitempty"`        // "ip:port" of the outside connection
	TicketID     string        `json:"ticket_id,omitempty"`   // hexadecimal; never the ticket itself
	Ticket       string        `json:"ticket,omitempty"`      // "ok" or the counter name; "" where none is due
	Setup        time.Time     `json:"setup_time,omitzero"`   // the INVITE came
	Connect      time.Time     `json:"connect_time,omitzero"` // the 200 passed; zero = never answered
	End          time.Time     `json:"end_time,omitzero"`
	DurationMS   int64         `json:"duration_ms"`          // Connect to End; 0 = never answered
	SetupMS      int64         `json:"setup_ms"`             // Setup to Connect; 0 = never answered
	EndReason    string        `json:"end_reason"`           // closed set, snake case: "bye", "cancel", "refused", "timeout", "shutdown", ...
	EndStatus    int           `json:"end_status,omitempty"` // final SIP status where the call was refused
	EndSide      string        `json:"end_side"`             // "inside", "outside", "proxy"
	TLSVersion   string        `json:"tls_version,omitempty"`
	CipherSuite  string        `json:"cipher_suite,omitempty"`
	SRTPSuite    string        `json:"srtp_suite,omitempty"` // of the first stream outside
	Media        []MediaRecord `json:"media,omitempty"`
	PacketsSent  uint64        `json:"packets_sent"`     // RTP towards the Internet, all streams
	PacketsRecvd uint64        `json:"packets_received"` // RTP from the Internet, all streams
}

// MediaRecord is one stream of a call record. Figures that were not measured are left out, never given a default.
type MediaRecord struct {
	Kind            string   `json:"kind"`
	Codec           string   `json:"codec,omitempty"`
	OutsideSuite    string   `json:"outside_suite,omitempty"`
	InsideSuite     string   `json:"inside_suite,omitempty"` // "" = plain RTP
	Outside         string   `json:"outside,omitempty"`      // the peer's "ip:port"
	Inside          string   `json:"inside,omitempty"`       // the phone's "ip:port"
	OutsideSent     uint64   `json:"outside_packets_sent"`
	OutsideReceived uint64   `json:"outside_packets_received"`
	InsideSent      uint64   `json:"inside_packets_sent"`
	InsideReceived  uint64   `json:"inside_packets_received"`
	LostOutside     *uint64  `json:"outside_packets_lost,omitempty"` // from the Internet, by sequence number
	LostInside      *uint64  `json:"inside_packets_lost,omitempty"`
	JitterOutsideMS *float64 `json:"outside_jitter_ms,omitempty"` // RFC 3550 section 6.4.1
	JitterInsideMS  *float64 `json:"inside_jitter_ms,omitempty"`
	AuthFailures    uint64   `json:"auth_failures,omitempty"`

	FarOutside *FarReport `json:"outside_far_report,omitempty"` // the last that the peer told of what it got
	FarInside  *FarReport `json:"inside_far_report,omitempty"`  // the phone's

	Quality *QualityRecord `json:"quality,omitempty"` // absent: not measured
}

// QualityRecord is the worst that the samples of a call's audio from the Internet showed (docs/fallback.md).
type QualityRecord struct {
	Samples    uint64  `json:"samples"`
	BadSamples uint64  `json:"bad_samples"` // at the level that held
	MaxLoss    float64 `json:"max_loss_percent"`
	MaxEvents  int     `json:"max_events"`
	MaxBurstMS float64 `json:"max_burst_ms"`
	MaxPDVMS   float64 `json:"max_pdv_ms"`
	MinMOS     float64 `json:"min_mos"`
	Notified   bool    `json:"fallback_notified,omitempty"` // the call agent was told
}

// Finish works out DurationMS and SetupMS from the times, which may be zero, and packet totals and suite from Media where they are unset.
func (r *CallRecord) Finish() {
	if !r.Connect.IsZero() {
		if !r.Setup.IsZero() {
			r.SetupMS = max(r.Connect.Sub(r.Setup).Milliseconds(), 0)
		}
		if !r.End.IsZero() {
			r.DurationMS = max(r.End.Sub(r.Connect).Milliseconds(), 0)
		}
	}
	if r.PacketsSent == 0 && r.PacketsRecvd == 0 {
		for _, m := range r.Media {
			r.PacketsSent += m.OutsideSent
			r.PacketsRecvd += m.OutsideReceived
		}
	}
	for _, m := range r.Media {
		if r.SRTPSuite == "" {
			r.SRTPSuite = m.OutsideSuite
		}
	}
}

// Defaults of RecordConfig.
const (
	DefaultRecordQueue = 1024
	DefaultRecordSize  = 64 << 20
	DefaultRecordKeep  = 5
)

// RecordConfig sets a RecordWriter up.
type RecordConfig struct {
	File     string // path; "" or "-" = the log
	MaxBytes int64  // the file is rotated before it grows over this; 0 = 64 MiB
	Keep     int    // rotated files kept as FILE.1 (newest) ... FILE.N; 0 = 5
	Queue    int    // records that wait for the disk; 0 = 1024
	Log      *slog.Logger
}

// RecordWriter writes call records. Write never blocks: records that find the queue full are dropped and counted. A failing disk drops
// records too; the first failure of a series is logged. Safe for concurrent use.
type RecordWriter struct {
	cfg     RecordConfig
	queue   chan CallRecord
	closing chan struct{} // ends the writer's rest
	done    chan struct{}
	mu      sync.RWMutex // guards closed against Write on a closed queue
	closed  bool
	written atomic.Uint64
	dropped atomic.Uint64

	// owned by the writing goroutine
	file   *os.File
	size   int64
	failed bool
	batch  []byte // whole lines
	lines  uint64 // in batch
}

// ErrRecordsClosed is returned by a second Close.
var ErrRecordsClosed = errors.New("call records are closed")

// NewRecordWriter opens the file (mode 0640, appended to) and starts the writing goroutine; Close ends it.
func NewRecordWriter(cfg RecordConfig) (*RecordWriter, error) {
	if cfg.MaxBytes <= 0 {
		cfg.MaxBytes = DefaultRecordSize
	}
	if cfg.Keep <= 0 {
		cfg.Keep = DefaultRecordKeep
	}
	if cfg.Queue <= 0 {
		cfg.Queue = DefaultRecordQueue
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.File == "-" {
		cfg.File = ""
	}
	w := &RecordWriter{cfg: cfg, queue: make(chan CallRecord, cfg.Queue), closing: make(chan struct{}), done: make(chan struct{})}
	if cfg.File != "" {
		if err := w.open(); err != nil {
			return nil, err
		}
	}
	go w.run()
	return w, nil
}

// Write hands a record over. It never waits; after Close, or when the queue is full, the record is dropped and counted.
func (w *RecordWriter) Write(r CallRecord) {
	w.mu.RLock()
	defer w.mu.RUnlock()
	if w.closed {
		w.dropped.Add(1)
		return
	}
	select {
	case w.queue <- r:
	default:
		w.dropped.Add(1)
	}
}

// Written counts the records that reached the file or the log.
func (w *RecordWriter) Written() uint64 { return w.written.Load() }

// Dropped counts the records lost to a full queue, a failing disk or a closed writer.
func (w *RecordWriter) Dropped() uint64 { return w.dropped.Load() }

// Close writes what waits, syncs and closes the file.
func (w *RecordWriter) Close() error {
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return ErrRecordsClosed
	}
	w.closed = true
	close(w.queue)
	close(w.closing)
	w.mu.Unlock()
	<-w.done
	if w.file == nil {
		return nil
	}
	return errors.Join(w.file.Sync(), w.file.Close())
}

// recordsBusy: after a record that came so soon after the one before, or after the writer's rest, the writer rests until the next beat: those of a
// busy time share its wake-ups, which are the log's too, and its writes to the disk.
const recordsBusy = 25 * time.Millisecond

// maxRecordBatch bounds what is written at once, in bytes; a record may exceed it alone.
const maxRecordBatch = 64 << 10

func (w *RecordWriter) run() {
	defer close(w.done)
	var last time.Time
	for r := range w.queue {
		before := last
		last = time.Now()
		w.put(r)
		for len(w.queue) > 0 {
			if r, ok := <-w.queue; ok {
				w.put(r)
			}
		}
		w.flush()
		if last.Sub(before) >= recordsBusy {
			continue
		}
		select {
		case <-time.After(ToBeat()):
			last = time.Now()
		case <-w.closing:
		}
	}
}

// put writes a record to the log, or adds it to what the next flush writes to the file.
func (w *RecordWriter) put(r CallRecord) {
	line, err := json.Marshal(r)
	if err != nil {
		w.count(1, fmt.Errorf("call record: %w", err))
		return
	}
	line = escapeControls(line) // peers choose identifiers and numbers, and records are read on terminals
	if w.cfg.File == "" {
		w.cfg.Log.Info("call record", "record", json.RawMessage(line))
		w.count(1, nil)
		return
	}
	if n := len(w.batch) + len(line) + 1; n > maxRecordBatch || w.size+int64(n) > w.cfg.MaxBytes {
		w.flush()
	}
	w.batch = append(append(w.batch, line...), '\n')
	w.lines++
}

// flush writes the batch to the file.
func (w *RecordWriter) flush() {
	if w.lines > 0 {
		w.count(w.lines, w.write(w.batch))
		w.batch, w.lines = w.batch[:0], 0
	}
}

// count notes the fate of records.
func (w *RecordWriter) count(n uint64, err error) {
	if err == nil {
		w.failed = false
		w.written.Add(n)
		return
	}
	w.dropped.Add(n)
	if !w.failed {
		w.cfg.Log.Error("call record not written", "error", err)
	}
	w.failed = true
}

// write appends whole lines to the file.
func (w *RecordWriter) write(lines []byte) error {
	if w.file == nil { // an earlier rotation failed half-way
		if err := w.open(); err != nil {
			return err
		}
	}
	if w.size > 0 && w.size+int64(len(lines)) > w.cfg.MaxBytes {
		if err := w.rotate(); err != nil {
			return err
		}
	}
	n, err := w.file.Write(lines)
	w.size += int64(n)
	if err != nil {
		return fmt.Errorf("call record: %w", err)
	}
	return nil
}

// open appends to the file. A last line that a crash cut short is ended first, so that it spoils itself alone.
func (w *RecordWriter) open() error {
	f, err := os.OpenFile(w.cfg.File, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o640)
	if err != nil {
		return fmt.Errorf("call records: %w", err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", w.cfg.File)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("call records: %w", err), f.Close())
	}
	w.file, w.size = f, info.Size()
	last := make([]byte, 1)
	if w.size > 0 {
		if _, err := f.ReadAt(last, w.size-1); err != nil && !errors.Is(err, io.EOF) {
			return errors.Join(fmt.Errorf("call records: %w", err), f.Close())
		}
		if !bytes.Equal(last, []byte{'\n'}) {
			if _, err := f.Write([]byte{'\n'}); err != nil {
				return errors.Join(fmt.Errorf("call records: %w", err), f.Close())
			}
			w.size++
		}
	}
	return nil
}

// rotate moves FILE to FILE.1, FILE.1 to FILE.2 and so on, the oldest one out, and opens a new FILE. Where that fails records are dropped
// rather than the file grown over its limit; the next record tries again.
func (w *RecordWriter) rotate() error {
	err := w.file.Close()
	w.file = nil
	if err != nil {
		return fmt.Errorf("call records: %w", err)
	}
	for i := w.cfg.Keep; i > 0; i-- {
		from := w.cfg.File
		if i > 1 {
			from = fmt.Sprintf("%s.%d", w.cfg.File, i-1)
		}
		if err := os.Rename(from, fmt.Sprintf("%s.%d", w.cfg.File, i)); err != nil && !os.IsNotExist(err) {
			return fmt.Errorf("call records: %w", err)
		}
	}
	return w.open()
}
