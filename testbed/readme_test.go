package testbed

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The configurations that newcomers are told to write are good ones.
func TestReadmeConfiguration(t *testing.T) {
	for _, name := range []string{"README.md", "docs/offpath.md"} {
		t.Run(name, func(t *testing.T) { documentedConfiguration(t, name) })
	}
}

func documentedConfiguration(t *testing.T, name string) {
	text, err := os.ReadFile(filepath.Join(Root(), name))
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)( *)```asa\n(.*?)\n *```").FindAllStringSubmatch(string(text), -1)
	if len(blocks) == 0 {
		t.Fatal("no configuration in it")
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
