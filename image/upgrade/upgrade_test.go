package upgrade

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"encoding/json"
	"errors"
	"testing"
)

var (
	key    = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
	public = key.Public().(ed25519.PublicKey)
	system = bytes.Repeat([]byte("system"), 1000)
)

func pack(t testing.TB, m Manifest) []byte {
	t.Helper()
	file, err := Pack(m, system, key)
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// signed makes a file with any manifest, signed well.
func signed(t *testing.T, m Manifest) []byte {
	t.Helper()
	text, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	out := binary.LittleEndian.AppendUint32([]byte(magic), uint32(len(text)))
	out = append(out, text...)
	out = append(out, ed25519.Sign(key, out)...)
	return append(out, system...)
}

func TestUpgrade(t *testing.T) {
	want := Manifest{Name: "imeproxy 0.2.0", Release: 200, Minimum: 100, Kernel: Part{4096, 100}, Initrd: Part{0, 4096}}
	m, got, err := Open(pack(t, want), public, 200)
	if err != nil || !bytes.Equal(got, system) {
		t.Fatal(err)
	}
	if m.Name != want.Name || m.Release != 200 || m.Minimum != 100 || m.Kernel != want.Kernel || m.Hardware != Hardware {
		t.Errorf("%+v", m)
	}
}

func TestRefusals(t *testing.T) {
	good := pack(t, Manifest{Release: 200})
	full, _, _ := Open(good, public, 0)
	change := func(at int) []byte {
		b := bytes.Clone(good)
		b[(at+len(b))%len(b)] ^= 1
		return b
	}
	other := func(f func(*Manifest)) []byte {
		m := full
		f(&m)
		return signed(t, m)
	}
	stranger := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{8}, ed25519.SeedSize)).Public().(ed25519.PublicKey)
	for name, c := range map[string]struct {
		file []byte
		key  ed25519.PublicKey
		want error
	}{
		"empty":              {nil, public, ErrFormat},
		"another file":       {system, public, ErrFormat},
		"cut in its head":    {good[:20], public, ErrFormat},
		"long manifest":      {append([]byte(magic), 0xff, 0xff, 0xff, 0xff), public, ErrFormat},
		"manifest changed":   {change(30), public, ErrSignature},
		"signature changed":  {change(-len(system) - 1), public, ErrSignature},
		"signed by another":  {good, stranger, ErrSignature},
		"no key":             {good, nil, ErrSignature},
		"system changed":     {change(-1), public, ErrDamaged},
		"cut short":          {good[:len(good)-1], public, ErrDamaged},
		"something appended": {append(bytes.Clone(good), 0), public, ErrDamaged},
		"other hardware":     {other(func(m *Manifest) { m.Hardware = "toaster" }), public, ErrHardware},
		"older":              {other(func(m *Manifest) { m.Release = 99 }), public, ErrOld},
		"part behind end":    {other(func(m *Manifest) { m.Kernel = Part{m.Size, 1} }), public, ErrFormat},
		"part before begin":  {other(func(m *Manifest) { m.Initrd = Part{-1, 1} }), public, ErrFormat},
	} {
		if _, got, err := Open(c.file, c.key, 100); !errors.Is(err, c.want) || got != nil {
			t.Errorf("%s: %v, wanted %v", name, err, c.want)
		}
	}
	if _, err := Pack(Manifest{Name: string(make([]byte, MaxManifest))}, system, key); err == nil {
		t.Error("a manifest over the limit was packed")
	}
}

func FuzzOpen(f *testing.F) {
	f.Add(pack(f, Manifest{Release: 200}))
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, file []byte) {
		m, system, err := Open(file, public, 0)
		if err == nil && int64(len(system)) != m.Size {
			t.Error("sizes differ")
		}
	})
}
