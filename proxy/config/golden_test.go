package config

import (
	"flag"
	"os"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestMain(m *testing.M) {
	flag.Parse()
	if *update {
		text, err := os.ReadFile("testdata/inline.cfg")
		if err != nil {
			panic(err)
		}
		c, _ := Parse("inline.cfg", text)
		if err := os.WriteFile("testdata/inline.golden", []byte(c.String()), 0o600); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}
