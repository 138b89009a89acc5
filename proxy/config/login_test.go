package config

import "testing"

func TestLogIn(t *testing.T) {
	c, found := Load("x", []byte("username admin password Correct-Horse-7\nusername keyed privilege 15\n"))
	if found.HasErrors() {
		t.Fatal(found)
	}
	for _, x := range []struct {
		name, password string
		ok             bool
	}{
		{"admin", "Correct-Horse-7", true},
		{"admin", "correct-horse-7", false},
		{"admin", "", false},
		{"keyed", "", false}, // a user with keys alone
		{"nobody", "nobody has this password", false},
	} {
		if u := c.LogIn(x.name, x.password); (u != nil) != x.ok || (u != nil && u.Name != x.name) {
			t.Errorf("%s, %q: %v", x.name, x.password, u)
		}
	}
}
