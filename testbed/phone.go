package testbed

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"text/template"
	"time"
)

// Phone is a baresip that plays a tone and records what it hears. It speaks
// SIP over TCP with its call agent and plain RTP.
type Phone struct {
	// Tone is the frequency that it plays, in Hz.
	Tone int

	e    *Enterprise
	lab  *Lab
	dir  string
	proc *Process
	conn net.Conn

	mu     sync.Mutex
	events []PhoneEvent // not yet taken by WaitEvent
	callID string       // of the newest event
	resp   chan phoneResponse
}

// PhoneEvent is what baresip reports of a call, for example CALL_ESTABLISHED.
type PhoneEvent struct {
	Type      string `json:"type"`
	Direction string `json:"direction"`
	PeerURI   string `json:"peeruri"`
	ID        string `json:"id"` // Call-ID
	Param     string `json:"param"`

	// Time is when the lab received it.
	Time time.Time `json:"-"`
}

// phoneResponse is baresip's answer to a command.
type phoneResponse struct {
	OK    bool   `json:"ok"`
	Data  string `json:"data"`
	Token string `json:"token"`
}

const phoneControl = "127.0.0.1:4444"

var phoneConfig = template.Must(template.New("phone").Parse(`poll_method epoll
sip_listen {{.IP}}:5060
call_local_timeout 120
call_max_calls 8
audio_player aubridge,nil
audio_source ausine,{{.Tone}}
audio_alert aubridge,nil
ausrc_srate 48000
ausrc_channels 2
auplay_srate 8000
auplay_channels 1
audio_buffer 20-160
rtp_ports 10000-10100
jitter_buffer_delay 1-50
rtp_stats yes
module_path {{.Modules}}
module g711.so
module g722.so
module sndfile.so
module ausine.so
module aufile.so
module aubridge.so
module srtp.so
module_tmp uuid.so
module_tmp account.so
module_app menu.so
module_app ctrl_tcp.so
ctrl_tcp_listen ` + phoneControl + `
snd_path rec
ringback_disabled yes
`))

// newPhone writes the phone's folder.
func newPhone(l *Lab, e *Enterprise) *Phone {
	p := &Phone{Tone: e.side.Tone, e: e, lab: l, dir: filepath.Join(l.Dir, "phone-"+e.Letter), resp: make(chan phoneResponse, 16)}
	if err := os.MkdirAll(filepath.Join(p.dir, "rec"), 0o755); err != nil {
		l.T.Fatalf("%v", err)
	}
	writeTemplate(l.T, filepath.Join(p.dir, "config"), phoneConfig, map[string]any{
		"IP": e.PhoneIP, "Tone": e.side.Tone, "Modules": baresipModules(),
	})
	writeFile(l.T, filepath.Join(p.dir, "contacts"), "")
	p.account(l.T, e.UCMIP)
	return p
}

// account writes who the phone is and where its calls go; it reads that when it starts.
func (p *Phone) account(t T, server netip.Addr) {
	t.Helper()
	e := p.e
	codec, answer := e.side.Codec, ";answermode=auto"
	if codec == "" {
		codec = "PCMU/8000/1"
	}
	if e.side.ManualAnswer {
		answer = ""
	}
	writeFile(t, filepath.Join(p.dir, "accounts"), fmt.Sprintf("<sip:%s@%s;transport=tcp>;outbound=\"sip:%s:5060;transport=tcp\";regint=0;audio_codecs=%s;ptime=20%s\n",
		e.Number, e.Domain, server, codec, answer))
}

// baresipModules is where Debian keeps them; other systems may differ.
func baresipModules() string {
	for _, d := range []string{"/usr/lib/baresip/modules", "/usr/local/lib/baresip/modules"} {
		if _, err := os.Stat(d); err == nil {
			return d
		}
	}
	return "/usr/lib/baresip/modules"
}

// Start starts the phone and returns when it can be told what to do.
func (p *Phone) Start(t T) {
	t.Helper()
	var err error
	p.proc, err = p.e.PhoneHost.Start("phone-"+p.e.Letter, StartOptions{Dir: p.dir, Env: []string{"HOME=" + p.dir}},
		"baresip", "-f", ".", "-s")
	if err != nil {
		t.Fatalf("%v", err)
	}
	p.lab.track(p.proc)
	Until(t, 20*time.Second, "phone "+p.e.Letter+" opens its control port", func() bool {
		p.conn, err = p.e.PhoneHost.Dial("tcp", "", phoneControl, time.Second)
		return err == nil || !p.proc.Running()
	})
	if err != nil {
		t.Fatalf("phone %s: %v\n%s", p.e.Letter, err, tail(p.proc.Log(), 3000))
	}
	go p.read(p.conn)
	p.lab.onClose(p.stop)
}

// stop hangs up and ends the phone.
func (p *Phone) stop() {
	p.proc.Stop(syscall.SIGTERM, 3*time.Second)
	p.conn.Close()
}

// Kill ends the phone without notice: nobody says BYE.
func (p *Phone) Kill() {
	p.proc.Kill()
	p.conn.Close()
}

// Log is baresip's output with every SIP message that it sent or received.
func (p *Phone) Log() string { return p.proc.Log() }

// read takes netstrings of JSON from the control port until it closes.
func (p *Phone) read(conn net.Conn) {
	r := bufio.NewReader(conn)
	for {
		head, err := r.ReadString(':')
		if err != nil {
			return
		}
		n, err := strconv.Atoi(strings.TrimSuffix(head, ":"))
		if err != nil || n < 0 || n > 1<<20 {
			return
		}
		body := make([]byte, n+1) // the comma after it too
		if _, err := readFull(r, body); err != nil {
			return
		}
		p.take(body[:n])
	}
}

// readFull fills b.
func readFull(r *bufio.Reader, b []byte) (int, error) {
	for n := 0; n < len(b); {
		m, err := r.Read(b[n:])
		if n += m; err != nil {
			return n, err
		}
	}
	return len(b), nil
}

// take sorts a message of the control port into events and answers.
func (p *Phone) take(body []byte) {
	var kind struct {
		Event    bool `json:"event"`
		Response bool `json:"response"`
	}
	if json.Unmarshal(body, &kind) != nil {
		return
	}
	if kind.Response {
		var r phoneResponse
		if json.Unmarshal(body, &r) == nil {
			select {
			case p.resp <- r:
			default: // nobody asks any more
			}
		}
		return
	}
	ev := PhoneEvent{Time: time.Now()}
	if json.Unmarshal(body, &ev) == nil {
		p.mu.Lock()
		p.events = append(p.events, ev)
		if ev.ID != "" {
			p.callID = ev.ID
		}
		p.mu.Unlock()
	}
}

// Command gives baresip a command of its menu and returns what it printed.
func (p *Phone) Command(t T, command, params string) string {
	t.Helper()
	token := fmt.Sprint(time.Now().UnixNano())
	req, err := json.Marshal(map[string]string{"command": command, "params": params, "token": token})
	if err != nil {
		t.Fatalf("%v", err)
	}
	if _, err := fmt.Fprintf(p.conn, "%d:%s,", len(req), req); err != nil {
		t.Fatalf("phone %s: %s: %v", p.e.Letter, command, err)
	}
	limit := time.After(10 * time.Second)
	for {
		select {
		case r := <-p.resp:
			if r.Token != token {
				continue
			}
			if !r.OK {
				t.Fatalf("phone %s refuses %s %s: %s", p.e.Letter, command, params, r.Data)
			}
			return r.Data
		case <-limit:
			t.Fatalf("phone %s does not answer %s", p.e.Letter, command)
		}
	}
}

// WaitEvent waits for an event of one of the types (separated by "|") and
// takes it, with all that came before it.
func (p *Phone) WaitEvent(t T, types string, limit time.Duration) PhoneEvent {
	t.Helper()
	var found PhoneEvent
	ok := eventually(limit, func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		for i, ev := range p.events {
			for want := range strings.SplitSeq(types, "|") {
				if ev.Type == want {
					found, p.events = ev, p.events[i+1:]
					return true
				}
			}
		}
		return false
	})
	if !ok {
		p.mu.Lock()
		events := slices.Clone(p.events)
		p.mu.Unlock()
		t.Fatalf("phone %s: no %s within %v; events: %v\n%s", p.e.Letter, types, limit, events, tail(p.Log(), 3000))
	}
	return found
}

// CallID is the Call-ID of the call that last had an event.
func (p *Phone) CallID() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.callID
}

// Forget drops the events that nobody has waited for.
func (p *Phone) Forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.events = nil
}

// Dial starts a call; WaitEvent tells what becomes of it.
func (p *Phone) Dial(t T, number string) {
	t.Helper()
	p.Command(t, "dial", fmt.Sprintf("sip:%s@%s", number, p.e.Domain))
}

// Answer takes the ringing call.
func (p *Phone) Answer(t T) { t.Helper(); p.Command(t, "accept", "") }

// Hangup ends the current call, or refuses the ringing one.
func (p *Phone) Hangup(t T) { t.Helper(); p.Command(t, "hangup", "") }

// Hold sends a re-INVITE with a=sendonly.
func (p *Phone) Hold(t T) { t.Helper(); p.Command(t, "hold", "") }

// Resume takes the call off hold.
func (p *Phone) Resume(t T) { t.Helper(); p.Command(t, "resume", "") }

// DTMF sends digits as RFC 4733 events.
func (p *Phone) DTMF(t T, digits string) {
	t.Helper()
	for _, d := range digits {
		p.Command(t, "sndcode", string(d))
	}
}

// Call dials the far phone and returns when both ends have the call
// established, with the time from dialling to the caller's knowledge.
func (p *Phone) Call(t T, far *Phone) (setup time.Duration) {
	t.Helper()
	p.Forget()
	far.Forget()
	start := time.Now()
	p.Dial(t, far.e.Number)
	ev := p.WaitEvent(t, "CALL_ESTABLISHED|CALL_CLOSED", 20*time.Second)
	if ev.Type == "CALL_CLOSED" {
		t.Fatalf("the call from %s to %s failed: %s", p.e.Number, far.e.Number, ev.Param)
	}
	far.WaitEvent(t, "CALL_ESTABLISHED", 10*time.Second)
	return ev.Time.Sub(start)
}

// Recordings lists the files of what the phone heard, oldest first. A file is
// whole when its call has ended; it ends at the first re-INVITE.
func (p *Phone) Recordings() []string {
	files, _ := filepath.Glob(filepath.Join(p.dir, "rec", "*dec.wav")) // only a bad pattern is an error
	sort.Slice(files, func(i, j int) bool { return modTime(files[i]).Before(modTime(files[j])) })
	return files
}

// LastTone analyses the newest recording.
func (p *Phone) LastTone(t T) Tone {
	t.Helper()
	files := p.Recordings()
	if len(files) == 0 {
		t.Fatalf("phone %s recorded nothing", p.e.Letter)
	}
	file := files[len(files)-1]
	audio, err := ReadWAV(file)
	if err != nil {
		t.Fatalf("recording of phone %s: %v", p.e.Letter, err)
	}
	tone, err := Analyze(audio)
	if err != nil {
		t.Fatalf("recording of phone %s (%s, %v): %v", p.e.Letter, file, audio.Duration(), err)
	}
	return tone
}

// modTime is a file's time, zero when there is none.
func modTime(path string) time.Time {
	st, err := os.Stat(path)
	if err != nil {
		return time.Time{}
	}
	return st.ModTime()
}
