package vap

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
)

// PasswordMin and PasswordMax bound a password's length in bytes.
const (
	PasswordMin = 8
	PasswordMax = 128
)

const (
	keyRounds = 100000
	nonceLen  = 32
)

var protocolVersion = []byte{0, 1, 0, 0}

// UserKey is what a user's password becomes: enough to authenticate, and as secret as the password. It prints as asterisks.
type UserKey struct{ b [32]byte }

// String keeps the key out of logs.
func (UserKey) String() string { return "*****" }

// GoString keeps the key out of logs.
func (UserKey) GoString() string { return "*****" }

// DeriveUserKey checks name and password and derives the key, which takes long on purpose.
func DeriveUserKey(username, password string) (UserKey, error) {
	if len(username) < 1 || len(username) > 64 || !graphic(username) {
		return UserKey{}, errors.New("user name: want 1 to 64 characters of 0x21 to 0x7e")
	}
	if len(password) < PasswordMin || len(password) > PasswordMax || !graphic(password) {
		return UserKey{}, fmt.Errorf("password: want %d to %d characters of 0x21 to 0x7e", PasswordMin, PasswordMax)
	}
	key, err := pbkdf2.Key(sha256.New, password, []byte("vap-v1:"+realm+":"+username), keyRounds, 32)
	if err != nil {
		return UserKey{}, fmt.Errorf("derive user key: %w", err)
	}
	return UserKey{[32]byte(key)}, nil
}

// Credentials are the users who may register. UserKey may be called at any time from several goroutines, must not
// block, and must take as long for a user that does not exist.
type Credentials interface {
	UserKey(username string) (key UserKey, known bool)
}

// Users are credentials in memory. Do not change them after they were given to a server.
type Users map[string]UserKey

// UserKey looks the user up.
func (u Users) UserKey(username string) (UserKey, bool) {
	k, ok := u[username]
	return k, ok
}

// sessionKeys derives the keys of what the client sends and what the server sends (section 4).
func sessionKeys(user UserKey, nonce, clientNonce []byte) (client, server []byte) {
	seed := append([]byte("vap-v1 session"), nonce...)
	session := integrity(user.b[:], append(seed, clientNonce...))
	return integrity(session, []byte("client")), integrity(session, []byte("server"))
}

func integrity(key, text []byte) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write(text)
	return mac.Sum(nil)
}

// authentic reports whether m ends in the integrity that key makes, in constant time.
func (m *message) authentic(key []byte) bool {
	return m.signed != 0 && hmac.Equal(m.raw[m.signed+4:], integrity(key, m.raw[:m.signed]))
}

// random never fails (crypto/rand).
func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return b
}

// sealer gives a direction's messages their sequence number and integrity. The zero value sends them plain.
type sealer struct {
	key []byte
	seq uint64
}

func (s *sealer) seal(m *message) ([]byte, error) {
	if s.key == nil {
		return m.encode(nil)
	}
	m.putU64(attrSequence, s.seq+1)
	b, err := m.encode(s.key)
	if err == nil {
		s.seq++ // a message that is not sent takes no number
	}
	return b, err
}

// opener checks the other direction. Once keyed, it lets nothing plain through.
type opener struct {
	key []byte
	seq uint64
}

func (o *opener) open(m *message) bool {
	if o.key == nil || !m.authentic(o.key) || m.u64(attrSequence) != o.seq+1 {
		return false
	}
	o.seq++
	return true
}
