package testbed

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The configuration that the README tells newcomers to write is a good one.
func TestReadmeConfiguration(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(Root(), "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)( *)```asa\n(.*?)\n *```").FindAllStringSubmatch(string(text), -1)
	if len(blocks) == 0 {
		t.Fatal("no configuration in the README")
	}
	for _, b := range blocks {
		file := filepath.Join(t.TempDir(), "readme.cfg")
		config := strings.ReplaceAll("\n"+b[2]+"\n", "\n"+b[1], "\n")
		if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := Imeproxy("check", file); err != nil || out != "" {
			t.Errorf("imeproxy check: %s%v", out, err)
		}
	}
}
