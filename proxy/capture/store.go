package capture

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"imeproxy/proxy/observe"
	"imeproxy/proxy/trace"
)

// Limits of captures.
const (
	MaxCaptures = 8
	DefaultSize = 64   // megabytes of a file
	MaxSize     = 1024 // megabytes
	MaxKeyTime  = time.Hour
	maxListed   = 10000 // packets that are shown
)

// Spec says what to capture.
type Spec struct {
	Name string
	SIP  trace.Filter // of a capture of SIP, where Device is empty
	// Device is the interface whose packets are captured, Nameif its name in the configuration.
	Device, Nameif string
	Host           netip.Addr // invalid: any
	Port           uint16     // 0: any
	Size           int        // megabytes; 0 = DefaultSize
}

func (s Spec) kind() string {
	if s.Device != "" {
		return "interface"
	}
	return "sip"
}

func (s Spec) filter() string {
	var out []string
	add := func(word, value string) {
		if value != "" {
			out = append(out, word+" "+value)
		}
	}
	if s.Device != "" {
		out = append(out, s.Nameif)
	}
	add("call-id", s.SIP.CallID)
	add("number", s.SIP.Number)
	add("peer", s.SIP.Peer)
	if s.Host.IsValid() {
		add("host", s.Host.String())
	}
	if s.Port != 0 {
		add("port", fmt.Sprint(s.Port))
	}
	return strings.Join(out, " ")
}

// Store has the captures of a daemon. Its methods may be called from any goroutine.
type Store struct {
	dir string
	hub *trace.Hub
	log *slog.Logger

	mu     sync.Mutex
	all    []*running
	closed bool
}

// NewStore makes a store whose files are in a directory. Close it.
func NewStore(dir string, hub *trace.Hub, log *slog.Logger) *Store {
	return &Store{dir: dir, hub: hub, log: log}
}

// running is one capture, also when it has ended.
var goodName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,31}$`)

// CheckName says what is wrong with the name of a capture.
func CheckName(name string) error {
	if !goodName.MatchString(name) {
		return errors.New("a name of at most 32 letters, digits, _ and - is expected")
	}
	return nil
}

func (s *Store) path(name string) string { return filepath.Join(s.dir, fileName(name)) }

func fileName(name string) string { return name + ".pcapng" }

func (s *Store) find(name string) *running {
	i := slices.IndexFunc(s.all, func(r *running) bool { return r.spec.Name == name })
	if i < 0 {
		return nil
	}
	return s.all[i]
}

// Start begins a capture.
func (s *Store) Start(spec Spec) error {
	if err := CheckName(spec.Name); err != nil {
		return err
	}
	if spec.Size == 0 {
		spec.Size = DefaultSize
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	active := 0
	for _, r := range s.all {
		if r.active() {
			active++
		}
	}
	switch {
	case s.closed:
		return errors.New("the appliance is stopping")
	case s.find(spec.Name) != nil:
		return fmt.Errorf("capture %s is there already: no capture %s removes it with its file", spec.Name, spec.Name)
	case active >= MaxCaptures:
		return fmt.Errorf("%d captures run already: end one by capture NAME stop", MaxCaptures)
	}
	f, err := os.OpenFile(s.path(spec.Name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("disk0:%s is there from an earlier capture: no capture %s removes it", fileName(spec.Name), spec.Name)
	}
	if err != nil {
		return fmt.Errorf("capture: %w", err)
	}
	r := &running{spec: spec, limit: int64(spec.Size) << 20, file: f, w: bufio.NewWriterSize(f, 256<<10), state: capturing, done: make(chan struct{})}
	if spec.Device != "" {
		err = r.hear()
	} else {
		err = r.listen(s.hub)
	}
	if err != nil {
		return errors.Join(err, f.Close(), os.Remove(s.path(spec.Name)))
	}
	s.all = append(s.all, r)
	return nil
}

// listen writes SIP messages.
// hear writes the packets of an interface.
// write adds to the file; false: it is full, or cannot be written, and the capture has ended.
// keyDelay is how long packets wait for keys: readers want a key before the first packet that needs it, and a client knows it only after that packet.
// waiting is a packet that is not in the file yet.
// packet adds a packet; false: the capture has ended.
// flushLocked writes the packets that came up to a time, and those for which there is no room to wait.
// flushAllLocked writes all that waits.
// stop ends a capture and waits until its file is whole.
// Stop ends a capture; its file stays.
func (s *Store) Stop(name string) error {
	s.mu.Lock()
	r := s.find(name)
	s.mu.Unlock()
	if r == nil {
		return noSuch(name)
	}
	r.stop()
	return nil
}

func noSuch(name string) error {
	return fmt.Errorf("there is no capture %s: show capture lists them", observe.Clean(name))
}

// Remove ends a capture and removes its file, or the file of an earlier one.
func (s *Store) Remove(name string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.find(name)
	if r != nil {
		r.stop()
		s.all = slices.DeleteFunc(s.all, func(x *running) bool { return x == r })
	}
	err := os.Remove(s.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		if r == nil {
			return noSuch(name)
		}
		return nil
	}
	return err
}

// Keys writes the keys of TLS sessions that begin from now on into a capture of an interface, for some time. The log tells of it.
func (s *Store) Keys(name, who string, d time.Duration) error {
	s.mu.Lock()
	r := s.find(name)
	s.mu.Unlock()
	switch {
	case r == nil:
		return noSuch(name)
	case r.spec.Device == "":
		return fmt.Errorf("capture %s has SIP in clear: keys are for the capture of an interface", name)
	case d <= 0 || d > MaxKeyTime:
		return fmt.Errorf("keys are written for at most %s", MaxKeyTime)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.state != capturing {
		return fmt.Errorf("capture %s has ended", name)
	}
	if r.timer != nil {
		r.timer.Stop()
	}
	r.keys = time.Now().Add(d)
	r.timer = time.AfterFunc(d, func() { s.log.Warn("keys of TLS sessions are written no more", "capture", name) })
	s.log.Warn("keys of new TLS sessions are written into a capture: whoever has its file can read their calls", "capture", name, "file", fileName(name), "until", r.keys, "by", who)
	return nil
}

// KeyLog is where the keys of a TLS session that begins now are to be written; nil: nowhere.
func (s *Store) KeyLog() io.Writer {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var to []*running
	for _, r := range s.all {
		r.mu.Lock()
		if !r.keys.IsZero() && time.Now().Before(r.keys) {
			to = append(to, r)
		}
		r.mu.Unlock()
	}
	if len(to) == 0 {
		return nil
	}
	return keyLog(to)
}

// keyLog takes the lines of a TLS key log (crypto/tls). A capture that cannot take them must not fail a handshake.
// List gives the captures, those whose files an earlier daemon left included.
func (s *Store) List() observe.Captures {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := observe.Captures{Captures: []observe.Capture{}}
	for _, r := range s.all {
		out.Captures = append(out.Captures, r.shown())
	}
	files, _ := filepath.Glob(filepath.Join(s.dir, "*.pcapng")) // the pattern is good
	for _, f := range files {
		name := strings.TrimSuffix(filepath.Base(f), ".pcapng")
		info, err := os.Lstat(f)
		if err != nil || s.find(name) != nil || CheckName(name) != nil {
			continue
		}
		out.Captures = append(out.Captures, observe.Capture{Name: name, Type: "file", State: "of an earlier run", Bytes: info.Size(), Limit: info.Size(), File: fileName(name)})
	}
	return out
}

// Show lists the packets of a capture, the latest maxListed of them.
func (s *Store) Show(name string) (observe.CaptureContent, error) {
	out := observe.CaptureContent{Name: name, Packets: []observe.CapturedPacket{}}
	if err := CheckName(name); err != nil {
		return out, err
	}
	s.mu.Lock()
	r := s.find(name)
	s.mu.Unlock()
	if r != nil {
		r.mu.Lock()
		if r.state == capturing && r.flushAllLocked() {
			_ = r.w.Flush() // an error ends the capture at the next packet
		}
		r.mu.Unlock()
	}
	f, err := os.Open(s.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return out, noSuch(name)
	}
	if err != nil {
		return out, err
	}
	defer f.Close()
	n := 0
	err = readPackets(bufio.NewReader(f), func(link uint16, p packet) bool {
		if n++; len(out.Packets) == maxListed {
			out.Packets = append(out.Packets[:0], out.Packets[maxListed/2:]...)
		}
		out.Packets = append(out.Packets, observe.CapturedPacket{Number: n, At: p.at, Length: p.length, Text: summary(link, p.data)})
		return true
	})
	out.Omitted = n - len(out.Packets)
	return out, err
}

// Close ends all captures; their files stay.
func (s *Store) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for _, r := range s.all {
		r.stop()
	}
}
