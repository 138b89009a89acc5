package upgrade

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
)

const (
	magic = "IMEUPG1\n"
	// MaxManifest is the largest manifest, in bytes.
	MaxManifest = 64 << 10
	// Hardware is what this project's systems run on.
	Hardware = "x86_64"
)

// Manifest says what a system is.
type Manifest struct {
	Name     string `json:"name"`     // for people
	Release  int64  `json:"release"`  // a later system has a larger number: the time of its commit, seconds since 1970
	Minimum  int64  `json:"minimum"`  // an appliance that runs it takes no system with a smaller Release
	Hardware string `json:"hardware"` // must be Hardware
	Size     int64  `json:"size"`
	SHA256   []byte `json:"sha256"`
	Kernel   Part   `json:"kernel"` // what of the system is the kernel and the initramfs
	Initrd   Part   `json:"initrd"`
	Script   Part   `json:"script"` // for the loader of a BIOS: sets the kernel's command line
}

// Part is a piece of the system.
type Part struct {
	Offset int64 `json:"offset"`
	Size   int64 `json:"size"`
}

// Why a file is refused.
var (
	ErrFormat    = errors.New("this is no upgrade of an appliance")
	ErrSignature = errors.New("the signature is missing or wrong")
	ErrDamaged   = errors.New("the file is damaged")
	ErrHardware  = errors.New("the upgrade is for other hardware")
	ErrOld       = errors.New("the upgrade is older than this appliance takes")
)

// Pack makes the file of a system; Size, SHA256 and Hardware of the manifest are filled in.
func Pack(m Manifest, system []byte, key ed25519.PrivateKey) ([]byte, error) {
	sum := sha256.Sum256(system)
	m.Size, m.SHA256, m.Hardware = int64(len(system)), sum[:], Hardware
	text, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	if len(text) > MaxManifest {
		return nil, fmt.Errorf("the manifest has %d bytes, %d at most", len(text), MaxManifest)
	}
	out := binary.LittleEndian.AppendUint32([]byte(magic), uint32(len(text)))
	out = append(out, text...)
	out = append(out, ed25519.Sign(key, out)...)
	return append(out, system...), nil
}

// Open checks a file and gives what is in it. minimum is that of the running system.
func Open(file []byte, key ed25519.PublicKey, minimum int64) (m Manifest, system []byte, err error) {
	if len(file) < len(magic)+4 || string(file[:len(magic)]) != magic {
		return m, nil, ErrFormat
	}
	size := int(min(binary.LittleEndian.Uint32(file[len(magic):]), MaxManifest+1))
	signed := len(magic) + 4 + size
	if size > MaxManifest || len(file) < signed+ed25519.SignatureSize {
		return m, nil, ErrFormat
	}
	if len(key) != ed25519.PublicKeySize || !ed25519.Verify(key, file[:signed], file[signed:signed+ed25519.SignatureSize]) {
		return m, nil, ErrSignature
	}
	if err := json.Unmarshal(file[len(magic)+4:signed], &m); err != nil {
		return m, nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	system = file[signed+ed25519.SignatureSize:]
	sum := sha256.Sum256(system)
	switch {
	case int64(len(system)) != m.Size || !bytes.Equal(sum[:], m.SHA256):
		return m, nil, ErrDamaged
	case m.Hardware != Hardware:
		return m, nil, fmt.Errorf("%w: %s", ErrHardware, m.Hardware)
	case m.Release < minimum:
		return m, nil, fmt.Errorf("%w: %d, not before %d", ErrOld, m.Release, minimum)
	}
	for _, p := range []Part{m.Kernel, m.Initrd, m.Script} {
		if p.Offset < 0 || p.Size < 0 || p.Offset > m.Size || p.Size > m.Size-p.Offset {
			return m, nil, fmt.Errorf("%w: it names parts that it has not", ErrFormat)
		}
	}
	return m, system, nil
}
