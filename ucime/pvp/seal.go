package pvp

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/tls"
	"errors"
	"fmt"
)

// Names of the two directions of the exchange after a proof.
const (
	directionRequest = "request"
	directionAnswer  = "answer"
)

var errSeal = errors.New("the message does not open")

// seal encrypts the only message that goes under this key of this run, hence the fixed nonce.
func (k *runKeys) seal(direction string, frame byte, ada, plain []byte) []byte {
	a := k.aead(direction)
	return a.Seal(nil, make([]byte, a.NonceSize()), plain, append([]byte{frame}, ada...))
}

func (k *runKeys) open(direction string, frame byte, ada, sealed []byte) ([]byte, error) {
	a := k.aead(direction)
	plain, err := a.Open(nil, make([]byte, a.NonceSize()), sealed, append([]byte{frame}, ada...))
	if err != nil {
		return nil, errSeal
	}
	return plain, nil
}

func (k *runKeys) aead(direction string) cipher.AEAD {
	block, err := aes.NewCipher(k.key(direction))
	if err != nil {
		panic("pvp: cipher: " + err.Error()) // the key has 32 bytes
	}
	a, err := cipher.NewGCM(block)
	if err != nil {
		panic("pvp: cipher: " + err.Error()) // AES has the block size that GCM wants
	}
	return a
}

// binding is the TLS exporter of RFC 9266, to which every run of the connection is bound.
func binding(state tls.ConnectionState) ([]byte, error) {
	b, err := state.ExportKeyingMaterial("EXPORTER-Channel-Binding", nil, 32)
	if err != nil {
		return nil, fmt.Errorf("TLS exporter: %w", err)
	}
	return b, nil
}

// sessionID is the sid of a run: the run's number keeps two runs of one connection apart.
func sessionID(exporter []byte, run int) []byte {
	return append(append(make([]byte, 0, len(exporter)+1), exporter...), byte(run))
}
