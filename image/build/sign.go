package main

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"imeproxy/image/upgrade"
)

// signingKey reads the key (PKCS#8), or makes it: whoever loses it can make no upgrade for what is in service.
func signingKey(file string) (ed25519.PrivateKey, error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return newKey(file)
	}
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%s: no PEM", file)
	}
	any, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	key, ok := any.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s: no ed25519 key", file)
	}
	return key, nil
}

func newKey(file string) (ed25519.PrivateKey, error) {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return nil, err
	}
	fmt.Fprintf(os.Stderr, "image: made %s: keep it, upgrades of this image must be signed with it\n", file)
	return key, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)
}

// number is the release of this system.
func (j *job) number() (int64, error) {
	n, err := strconv.ParseInt(j.epoch, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("-epoch %q: must be seconds since 1970", j.epoch)
	}
	return n, nil
}

// identity is what the system knows of itself (image/init/upgrade.go).
func (j *job) identity(key ed25519.PrivateKey) ([]byte, error) {
	n, err := j.number()
	if err != nil {
		return nil, err
	}
	return json.Marshal(map[string]any{"release": n, "minimum": j.minimum, "key": key.Public()})
}

// upgrade makes the file by which appliances in service get this system.
func (j *job) upgrade(sys *system, key ed25519.PrivateKey) error {
	n, err := j.number()
	if err != nil {
		return err
	}
	name := "imeproxy " + j.version
	if j.commit != "" {
		name += " (" + j.commit + ")"
	}
	file, err := upgrade.Pack(upgrade.Manifest{
		Name: name, Release: n, Minimum: j.minimum,
		Kernel: upgrade.Part(sys.parts.Kernel), Initrd: upgrade.Part(sys.parts.Initrd), Script: upgrade.Part(sys.parts.Script),
	}, sys.image, key)
	if err != nil {
		return err
	}
	return os.WriteFile(j.name("upgrade"), file, 0o644)
}
