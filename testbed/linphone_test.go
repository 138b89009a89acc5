package testbed

import (
	"fmt"
	"math"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"text/template"
	"time"
)

// Linphone is a phone of another make in the place of a whole enterprise: it speaks TLS by mbed TLS and SRTP by libsrtp with the
// proxy, demands SRTP, and verifies the certificate of whom it calls, its name included.
type Linphone struct {
	dir   string
	proc  *Process
	stdin *os.File
}

const linphoneTone = 620 // Hz

var linphoneConfig = template.Must(template.New("linphone").Parse(`[sip]
media_encryption=srtp
media_encryption_mandatory=1
root_ca={{.CA}}
client_cert_chain={{.Cert}}
client_cert_key={{.Key}}
verify_server_certs=1
verify_server_cn=1
contact="b" <sip:{{.Number}}@{{.IP}}>
sip_port=-1
sip_tcp_port=-1
sip_tls_port={{.Port}}
guess_hostname=0
[rtp]
audio_rtp_port=7078-7178
[net]
mtu=1300
`))

// startLinphone starts one on the far side's mapped address.
func startLinphone(t T, l *Lab, id *Identity) *Linphone {
	t.Helper()
	e := l.B
	p := &Linphone{dir: filepath.Join(l.Dir, "linphone")}
	for _, d := range []string{".local/share/linphone", ".config/linphone"} {
		if err := os.MkdirAll(filepath.Join(p.dir, d), 0o755); err != nil {
			t.Fatalf("%v", err)
		}
	}
	rc, fifo := filepath.Join(p.dir, "rc"), filepath.Join(p.dir, "stdin")
	writeTemplate(t, rc, linphoneConfig, map[string]any{
		"CA": l.CA.File, "Cert": id.CertFile, "Key": id.KeyFile, "IP": e.Mapped, "Number": e.Number, "Port": TrunkPort,
	})
	e.EdgeHost.MustRun(t, "sox", "-q", "-n", "-r", "8000", "-c", "1", "-b", "16", p.file("tone.wav"), "synth", "60", "sine", fmt.Sprint(linphoneTone), "vol", "0.5")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatalf("%v", err)
	}
	var err error
	if p.stdin, err = os.OpenFile(fifo, os.O_RDWR, 0); err != nil { // both ends: neither open waits for the other
		t.Fatalf("%v", err)
	}
	p.proc, err = e.EdgeHost.Start("linphone", StartOptions{Dir: p.dir, Env: []string{"HOME=" + p.dir}},
		"sh", "-c", fmt.Sprintf("exec linphonec -a -c %s -d 6 -l %s < %s", rc, p.file("linphone.log"), fifo))
	if err != nil {
		t.Fatalf("%v", err)
	}
	l.track(p.proc)
	l.onClose(p.stop)
	Until(t, 20*time.Second, "linphone listens", func() bool {
		out, err := e.EdgeHost.Run("ss", "-Hltn", "sport", "=", fmt.Sprintf(":%d", TrunkPort))
		return err == nil && len(nonEmptyLines(out)) > 0
	})
	p.command(t, "soundcard use files", "play "+p.file("tone.wav"), "record "+p.file("heard.wav"))
	return p
}

func (p *Linphone) file(name string) string { return filepath.Join(p.dir, name) }

// command types lines at linphone's prompt.
func (p *Linphone) command(t T, lines ...string) {
	t.Helper()
	for _, l := range lines {
		if _, err := p.stdin.WriteString(l + "\n"); err != nil {
			t.Fatalf("linphone: %v", err)
		}
	}
}

func (p *Linphone) stop() {
	_, _ = p.stdin.WriteString("quit\n")
	p.proc.Stop(syscall.SIGTERM, 5*time.Second)
	p.stdin.Close()
}

// log is linphone's own, with every SIP message.
func (p *Linphone) log() string { return readAll(p.file("linphone.log")) }

// becomes waits for words in linphone's log.
func (p *Linphone) becomes(t T, words string) {
	t.Helper()
	Until(t, 10*time.Second, "linphone's log says "+words, func() bool { return strings.Contains(p.log(), words) })
}

// heard analyses what linphone recorded since its start; the file is whole when a call has ended.
func (p *Linphone) heard(t T) Tone {
	t.Helper()
	audio, err := ReadWAV(p.file("heard.wav"))
	if err != nil {
		t.Fatalf("linphone's recording: %v", err)
	}
	tone, err := Analyze(audio)
	if err != nil {
		t.Fatalf("linphone's recording: %v", err)
	}
	return tone
}

// One end of the call is linphone: TLS, SDES and SRTP of another make than ours, and of another than Kamailio's and rtpengine's. It is
// always the one who calls, since it takes no TLS connections ("not handled").
func TestLinphone(t *testing.T) {
	lab := Start(t, Options{NoStart: true, B: Side{Edge: EdgeRouter}})
	id, err := lab.CA.Issue("linphone", EdgeCert(lab.B.Domain))
	if err != nil {
		t.Fatal(err)
	}
	lab.A.Proxy.Start(t)
	lab.A.UCM.Start(t)
	lab.A.Phone.Start(t)
	far, phone := startLinphone(t, lab, id), lab.A.Phone
	// A header in the URI becomes one of the request (RFC 3261 19.1.1).
	uri := fmt.Sprintf("sip:%s@%s:%d;transport=tls?X-Cisco-UC-IME-Ticket=%s", lab.A.Number, lab.A.Mapped, TrunkPort,
		url.QueryEscape(lab.ticketFor(t, lab.B)))

	// linphone compares the name that it calls, here an address, with DNS names alone.
	t.Run("a name that the certificate does not hold", func(t *testing.T) {
		far.command(t, "call "+uri)
		far.becomes(t, "CN-mismatch")
		if strings.Contains(lab.A.Proxy.Log(), "by=outside") {
			t.Error("a signaling session with linphone")
		}
	})
	t.Run("a call with holds of both sides", func(t *testing.T) {
		inside := lab.Capture(t, lab.A.EdgeHost, "ein")
		internet := lab.Capture(t, lab.Internet.Host, "ea")
		spec := EdgeCert(lab.A.Domain)
		spec.Names = append(spec.Names, lab.A.Mapped.String())
		named, err := lab.CA.Issue("named", spec)
		if err != nil {
			t.Fatal(err)
		}
		before, _ := lab.A.Proxy.Shell("show crypto ca certificates")
		MustImeproxy(t, "crypto", "import", "--state-dir", lab.A.Proxy.StateDir, "--trustpoint", "local_ent", "--pkcs12", named.P12File, "--passphrase", P12Pass)
		Until(t, 10*time.Second, "the daemon takes the new certificate", func() bool {
			text, err := lab.A.Proxy.Shell("show crypto ca certificates")
			return err == nil && text != before
		})
		far.command(t, "call "+uri)
		phone.WaitEvent(t, "CALL_ESTABLISHED", 10*time.Second)
		lab.TalkFor(t, 2*time.Second, inside)
		far.command(t, "pause")
		far.becomes(t, "from state LinphoneCallPausing to LinphoneCallPaused")
		far.command(t, "resume")
		far.becomes(t, "from state LinphoneCallResuming to LinphoneCallStreamsRunning")
		phone.Hold(t)
		far.becomes(t, "to LinphoneCallPausedByRemote")
		phone.Resume(t)
		far.becomes(t, "from state LinphoneCallPausedByRemote to LinphoneCallStreamsRunning")
		lab.TalkFor(t, 2*time.Second, inside)
		if tone := phone.LastTone(t); math.Abs(tone.Hz-linphoneTone) > 5 {
			t.Errorf("the phone heard %+v", tone)
		}
		far.command(t, "terminate")
		phone.WaitEvent(t, "CALL_CLOSED", 10*time.Second)
		Until(t, 10*time.Second, "linphone ends its call", func() bool { return strings.Contains(readAll(far.proc.OutFile), "ended (No error)") })
		if tone := far.heard(t); math.Abs(tone.Hz-float64(phone.Tone)) > 5 {
			t.Errorf("linphone heard %+v", tone)
		}
		inside.Stop(t)
		internet.Stop(t)
		r := CheckWire(internet.Packets(t), [][]Packet{inside.Packets(t)}, internet.TLSMessages(t, lab.A.Proxy.KeyLog), lab.A.Inside)
		// Not r.OK(): linphone also sends STUN requests, to keep a NAT open that is not there.
		if r.PlainRTP > 0 || len(r.InsideAddresses) > 0 || r.SRTP < 100 || r.TLS == 0 {
			t.Errorf("wire: %+v", r)
		}
	})
}
