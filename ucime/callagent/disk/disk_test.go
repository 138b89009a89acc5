package disk

import (
	"os"
	"path/filepath"
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
