package proxy

import (
	"testing"

	"imeproxy/proxy/config"
)

// An entry that stays keeps the ID under which the kernel counts it, and no two entries share one.
func TestEntryIDs(t *testing.T) {
	load := func(text string) (*config.Config, map[string]string) {
		cfg, found := config.Load("f", []byte(text))
		if found.HasErrors() {
			t.Fatal(found.Error())
		}
		ids, out := entryIDs(cfg), map[string]string{}
		for _, l := range cfg.AccessLists {
			for i, e := range l.Entries {
				out[l.Name+string(rune('0'+i))] = ids[e.Pos]
			}
		}
		return cfg, out
	}
	_, before := load("access-list a extended permit tcp any any eq 80\naccess-list a extended permit tcp any any eq 81\naccess-list b extended permit tcp any any eq 80\n")
	_, after := load("access-list a extended permit udp any any\naccess-list a extended permit tcp any any eq 80 log 3\naccess-list b extended permit tcp any any eq 80\naccess-list a extended permit tcp any any eq 81\n")
	if before["a0"] != after["a1"] || before["a1"] != after["a2"] || before["b0"] != after["b0"] {
		t.Errorf("IDs moved: %v, %v", before, after)
	}
	seen := map[string]bool{}
	for name, id := range after {
		if seen[id] || id == "" {
			t.Errorf("%s has ID %q, which another has or which is none", name, id)
		}
		seen[id] = true
	}
}
