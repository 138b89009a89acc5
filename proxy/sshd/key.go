package sshd

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"

	gossh "golang.org/x/crypto/ssh"

	"imeproxy/proxy/revision"
)

// hostKey reads the key that this machine proves itself with, or makes it. It is written whole before it gets its name: clients remember the key.
func hostKey(file string) (gossh.Signer, error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		text, err = makeKey(file)
	}
	if err != nil {
		return nil, fmt.Errorf("ssh host key: %w", err)
	}
	signer, err := gossh.ParsePrivateKey(text)
	if err != nil {
		return nil, fmt.Errorf("ssh host key %s: %w: remove the file to have another made", file, err)
	}
	return signer, nil
}

func makeKey(file string) ([]byte, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	block, err := gossh.MarshalPrivateKey(key, "imeproxy")
	if err != nil {
		return nil, err
	}
	text := pem.EncodeToMemory(block)
	return text, revision.WriteFile(file, text)
}
