package disk

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestReplaceLeavesOneFileForItsOwner(t *testing.T) {
	file := filepath.Join(t.TempDir(), "state")
	for _, text := range []string{"old", "new"} {
		if err := Replace(file, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(file)
	if err != nil || string(got) != "new" {
		t.Errorf("%q %v", got, err)
	}
	if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", st.Mode(), err)
	}
	// What cannot be done leaves nothing behind.
	if err := os.Mkdir(filepath.Join(filepath.Dir(file), "taken"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Replace(filepath.Join(filepath.Dir(file), "taken"), nil); err == nil {
		t.Error("a directory was replaced")
	}
	if all, _ := os.ReadDir(filepath.Dir(file)); len(all) != 2 {
		t.Errorf("%v", all)
	}
}

// What a killed program left goes; what is not of Replace stays.
func TestTidy(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a[b]*c")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"f.json", "f.json.123456", "f.json.bak", "f.json.12x", "g.json.7"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := Tidy(filepath.Join(dir, "f.json")); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range files {
		names = append(names, f.Name())
	}
	if got := strings.Join(names, " "); got != "f.json f.json.12x f.json.bak g.json.7" {
		t.Errorf("there are %s", got)
	}
}
