package testbed

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
)

// libsrtp is one SRTP end made of libsrtp2, in a process of its own: pion/srtp
// is what the proxy itself is built on, and an error of it would hide.
type libsrtp struct {
	mu  sync.Mutex
	in  io.WriteCloser
	out *bufio.Reader
}

// errNoLibsrtp says that this machine cannot build the peer.
var errNoLibsrtp = errors.New("no gcc, or no libsrtp2 to compile against (Debian: libsrtp2-dev)")

var libsrtpPeer = sync.OnceValues(func() (string, error) {
	if _, err := exec.LookPath("gcc"); err != nil {
		return "", errNoLibsrtp
	}
	if err := os.MkdirAll(filepath.Join(Root(), "build"), 0o755); err != nil {
		return "", err
	}
	bin := filepath.Join(Root(), "build", "srtp_peer")
	cmd := exec.Command("gcc", "-O2", "-o", bin, filepath.Join(Root(), "mediaterm", "testdata", "srtp_peer.c"), "-lsrtp2")
	out, err := cmd.CombinedOutput()
	switch {
	case err == nil:
		return bin, nil
	case bytes.Contains(out, []byte("srtp2/srtp.h: No such file")) || bytes.Contains(out, []byte("cannot find -lsrtp2")):
		return "", errNoLibsrtp
	}
	return "", fmt.Errorf("compile srtp_peer.c: %w: %s", err, out)
})

// UseLibsrtp makes the stub speak SRTP by libsrtp2, as SetKeys does by
// pion/srtp. False: this machine has none, and pion it is.
func (m *MediaStub) UseLibsrtp(t T, local, remote StubCrypto) bool {
	t.Helper()
	bin, err := libsrtpPeer()
	if errors.Is(err, errNoLibsrtp) {
		t.Logf("%v: only pion/srtp checks", err)
		return false
	}
	if err != nil {
		t.Fatalf("%v", err)
	}
	cmd := exec.Command(bin, local.Suite, hex.EncodeToString(local.Key), hex.EncodeToString(remote.Key))
	l := &libsrtp{}
	out, err := cmd.StdoutPipe()
	if err == nil {
		l.in, err = cmd.StdinPipe()
	}
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatalf("libsrtp peer: %v", err)
	}
	l.out = bufio.NewReader(out)
	t.Cleanup(func() {
		l.in.Close()
		cmd.Wait()
	})
	m.mu.Lock()
	defer m.mu.Unlock()
	m.send, m.recv = l, l
	return true
}

// do runs one packet through an operation of the peer.
func (l *libsrtp) do(op byte, b []byte) ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, err := fmt.Fprintf(l.in, "%c %x\n", op, b); err != nil {
		return nil, err
	}
	line, err := l.out.ReadString('\n')
	if err != nil {
		return nil, err
	}
	line = strings.TrimSpace(line)
	if strings.HasPrefix(line, "!") {
		return nil, fmt.Errorf("libsrtp refuses: %s", line)
	}
	return hex.DecodeString(line)
}

func (l *libsrtp) EncryptRTP(_, b []byte, _ *rtp.Header) ([]byte, error)   { return l.do('p', b) }
func (l *libsrtp) DecryptRTP(_, b []byte, _ *rtp.Header) ([]byte, error)   { return l.do('u', b) }
func (l *libsrtp) EncryptRTCP(_, b []byte, _ *rtcp.Header) ([]byte, error) { return l.do('P', b) }
func (l *libsrtp) DecryptRTCP(_, b []byte, _ *rtcp.Header) ([]byte, error) { return l.do('U', b) }
