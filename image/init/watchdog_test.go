package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// The card is found by its numbers among others, and is told to restart the machine after the time; the registers lie anywhere in
// their page.
func TestWatchdogCard(t *testing.T) {
	devices := t.TempDir()
	put := func(dir string, files map[string][]byte) {
		t.Helper()
		if err := os.MkdirAll(filepath.Join(devices, dir), 0o755); err != nil {
			t.Fatal(err)
		}
		for name, data := range files {
			if err := os.WriteFile(filepath.Join(devices, dir, name), data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	put("0000:00:01.0", map[string][]byte{"vendor": []byte("0x1af4\n"), "device": []byte("0x1000\n")})
	if card, err := openESB(devices); card != nil || err != nil {
		t.Fatalf("another card: %v, %v", card, err)
	}
	config := make([]byte, 256)
	copy(config[0x10:], []byte{0x40, 0x15, 0xbf, 0xfe})
	put("0000:00:02.0", map[string][]byte{
		"vendor": []byte("0x8086\n"), "device": []byte("0x25ab\n"), "enable": []byte("0\n"), "config": config, "resource0": make([]byte, os.Getpagesize()),
	})
	card, err := openESB(devices)
	if err != nil || card == nil {
		t.Fatalf("%v, %v", card, err)
	}
	card.start(30 * time.Second)
	// Two stages of 15 * 1024 ticks, and the last write to the third register starts both.
	if want := []byte{0, 0x3c, 0, 0, 0, 0x3c, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0}; !bytes.Equal(card.registers, want) {
		t.Errorf("registers % x, must be % x", card.registers, want)
	}
	for name, want := range map[string]string{"enable": "1", "config": "\x02"} {
		got, err := os.ReadFile(filepath.Join(devices, "0000:00:02.0", name))
		if name == "config" {
			got = got[esbLock : esbLock+1]
		}
		if err != nil || string(bytes.TrimSpace(got)) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func TestHealthyWithin(t *testing.T) {
	for cmdline, want := range map[string]time.Duration{
		"quiet": healthLimit, "quiet imeproxy.healthy-within=30s\n": 30 * time.Second, "imeproxy.healthy-within=-1s": healthLimit, "imeproxy.healthy-within=x": healthLimit,
	} {
		if got := healthyWithin(cmdline); got != want {
			t.Errorf("%q: %v, must be %v", cmdline, got, want)
		}
	}
}
