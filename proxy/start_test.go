package proxy

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imeproxy/proxy/config"
)

// TestStartNamesWhatIsMissing starts a good configuration whose certificate nobody has imported: the operator gets the trustpoint and
// what to do, and nothing of the start is left.
func TestStartNamesWhatIsMissing(t *testing.T) {
	text, err := os.ReadFile("config/testdata/inline.cfg")
	if err != nil {
		t.Fatal(err)
	}
	cfg, found := config.Load("inline.cfg", text)
	if found.HasErrors() {
		t.Fatal(found.Error())
	}
	a, err := Start(context.Background(), Options{Config: cfg, StateDir: t.TempDir(), Log: slog.New(slog.DiscardHandler)})
	if a != nil || err == nil {
		t.Fatalf("started: %v %v", a, err)
	}
	// The test's machine has neither of the interfaces; all that is missing is told at once.
	for _, want := range []string{`unknown trustpoint: "local-ent"`, "`imeproxy crypto import` bring its certificate", "interface " + cfg.Interfaces[0].Name + ": ", "this machine has "} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %q: %v", want, err)
		}
	}
}

// TestInterfacesOutOfUseNeedNotExist takes the list of cards as an ASA has it: most of them shut down.
func TestInterfacesOutOfUseNeedNotExist(t *testing.T) {
	for text, missing := range map[string]bool{
		"interface nosuch8\n shutdown\n no nameif\n no security-level\n no ip address\n":           false,
		"interface nosuch8\n nameif dmz\n security-level 50\n":                                     false,
		"interface nosuch9\n nameif dmz\n security-level 50\n ip address 10.9.9.1 255.255.255.0\n": true,
	} {
		cfg, found := config.Load("f", []byte(text))
		if found.HasErrors() {
			t.Fatal(found.Error())
		}
		if err := checkInterfaces(cfg); (err != nil) != missing {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// TestStartUndoesWhatWasOpened fails after the call records were opened: they are closed again, which the leak check of this package sees.
func TestStartUndoesWhatWasOpened(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "kernel.lock"), 0o700); err != nil { // or no permission to touch the kernel at all
		t.Fatal(err)
	}
	cfg, found := config.Load("f", []byte("hostname x\n"))
	if found.HasErrors() {
		t.Fatal(found.Error())
	}
	if a, err := Start(context.Background(), Options{Config: cfg, StateDir: dir, Log: slog.New(slog.DiscardHandler)}); a != nil || err == nil {
		t.Errorf("started although its state directory cannot be locked: %v %v", a, err)
	}
}

// TestBannerIsThatOfTheConfiguration shows the lines to who opens a shell on a terminal: motd first, exec last, each kind in the text's order.
func TestBannerIsThatOfTheConfiguration(t *testing.T) {
	a := &Appliance{}
	a.plan.Store(testPlan(t, edgeConfig+"banner exec Type help\nbanner motd Enterprise A\nbanner motd Keep out\nbanner login “Be welcome”\n"))
	if got, want := a.Banner(), "Enterprise A\nKeep out\nBe welcome\nType help\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	a.plan.Store(testPlan(t, edgeConfig))
	if got := a.Banner(); got != "" {
		t.Errorf("a banner out of nowhere: %q", got)
	}
}
