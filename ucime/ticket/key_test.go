package ticket

import (
	"crypto/hmac"
	"crypto/sha256"
	"testing"
)

func TestSumIsThatOfTheStandardLibrary(t *testing.T) {
	key := [32]byte{1, 2, 3, 31: 255}
	message := make([]byte, 2000)
	for i := range message {
		message[i] = byte(i * 7)
	}
	for n := range message {
		h := hmac.New(sha256.New, key[:])
		h.Write(message[:n])
		if got := hmac256(key, message[:n]); !hmac.Equal(got[:], h.Sum(nil)) {
			t.Fatalf("%d bytes: another sum", n)
		}
	}
}
