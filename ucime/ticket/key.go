package ticket

import (
	"crypto/pbkdf2"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
)

// Of the derivation of the epoch key.
const (
	keyLabel  = "uc-ime-ticket-v1:"
	keyRounds = 100_000
)

// Key is the key of one epoch, made from the configured password. It is secret
// and prints as asterisks. The zero Key issues and verifies nothing.
type Key struct {
	epoch uint8
	key   [32]byte
}

// DeriveKey makes the key of an epoch (1 to 255). It takes tens of
// milliseconds on purpose: call it when the configuration is applied and never
// for a request.
func DeriveKey(password string, epoch uint8) Key {
	b, err := pbkdf2.Key(sha256.New, password, []byte(keyLabel+strconv.Itoa(int(epoch))), keyRounds, 32)
	if err != nil {
		// Only a key length above 2^32 blocks or a FIPS rule that these
		// fixed sizes keep can fail.
		panic("ticket: " + err.Error())
	}
	return Key{epoch, [32]byte(b)}
}

// Epoch is the epoch that the key was made for, 0 of the zero Key.
func (k Key) Epoch() uint8 { return k.epoch }

// Format prints asterisks whatever the verb, so that no log holds the key.
func (Key) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("*****")) }

// LogValue keeps the key out of structured logs.
func (Key) LogValue() slog.Value { return slog.StringValue("*****") }

// MarshalText keeps the key out of JSON.
func (Key) MarshalText() ([]byte, error) { return []byte("*****"), nil }

// integrity costs two HMACs.
func (k Key) integrity(salt [16]byte, signed []byte) [32]byte {
	return hmac256(hmac256(k.key, salt[:]), signed)
}

// hmac256 is HMAC-SHA-256 (RFC 2104) under a key of 32 bytes. That of the standard library makes six objects for a sum, and each call needs two.
func hmac256(key [32]byte, message []byte) [32]byte {
	var room [1024]byte // most messages are shorter
	var inner, outer [sha256.BlockSize]byte
	for i := range inner {
		inner[i], outer[i] = 0x36, 0x5c
	}
	for i, k := range key {
		inner[i] ^= k
		outer[i] ^= k
	}
	sum := sha256.Sum256(append(append(room[:0], inner[:]...), message...))
	return sha256.Sum256(append(append(room[:0], outer[:]...), sum[:]...))
}

// CheckPassword wants 10 to 64 characters of 0x21 to 0x7e. The error does not
// hold the password.
func CheckPassword(password string) error {
	if n := len(password); n < 10 || n > 64 {
		return fmt.Errorf("ticket password has %d characters, want 10 to 64", n)
	}
	for i := range len(password) {
		if password[i] < 0x21 || password[i] > 0x7e {
			return errors.New("ticket password has a character outside 0x21 to 0x7e at position " + strconv.Itoa(i+1))
		}
	}
	return nil
}
