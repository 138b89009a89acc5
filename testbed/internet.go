package testbed

import (
	"fmt"
	"os/exec"
	"strings"
)

// Internet is the router between the enterprises, with means to make it a bad
// one. Its interfaces are ea, eb (the edges) and eo (the outsider).
type Internet struct {
	*Host
}

// impairTable is the nftables table of the faults.
const impairTable = "lab_impair"

// Impair replaces the faults by nftables rules of a forward chain, for
// example `iifname "ea" udp dport 16384-32767 numgen inc mod 20 0 drop` for a
// loss of 5 % from A. No rule: a good Internet again.
func (i *Internet) Impair(rules ...string) error {
	// The table is made before it is deleted, so that deletion always works.
	text := fmt.Sprintf("table ip %[1]s { }\ndelete table ip %[1]s\n", impairTable)
	if len(rules) > 0 {
		text += fmt.Sprintf("table ip %s {\n chain forward { type filter hook forward priority 0; policy accept;\n  %s\n }\n}\n", impairTable, strings.Join(rules, "\n  "))
	}
	cmd := exec.Command("ip", "netns", "exec", i.NS, "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("nft: %w: %s\n%s", err, out, text)
	}
	return nil
}

// Cut drops every packet between the enterprises until Impair is called.
func (i *Internet) Cut() error { return i.Impair("drop") }

// ResetTCP lets every TCP connection that crosses end with a reset in the
// face of whoever sends next, until Impair is called.
func (i *Internet) ResetTCP() error {
	return i.Impair("meta l4proto tcp reject with tcp reset")
}
