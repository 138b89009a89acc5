package config

import (
	"sync"

	"golang.org/x/crypto/bcrypt"
)

// absent is what the password of an unknown user is compared with, so that a wrong name takes as long as a wrong password.
var absent = sync.OnceValue(func() []byte {
	hash, err := bcrypt.GenerateFromPassword([]byte("nobody has this password"), PasswordCost)
	if err != nil {
		panic(err) // a constant password of a constant cost
	}
	return hash
})

// LogIn gives the user with a name and a password, or nil: after the time of one comparison for unknown users too.
func (c *Config) LogIn(name, password string) *User {
	u := c.User(name)
	known := u != nil && u.Password != ""
	hash := absent()
	if known {
		hash = []byte(u.Password.Reveal())
	}
	if len(password) > 72 || bcrypt.CompareHashAndPassword(hash, []byte(password)) != nil || !known {
		return nil
	}
	return u
}
