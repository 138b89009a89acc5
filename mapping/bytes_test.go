package mapping

import (
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
)

// The bytes of a whole batch, which need neither privilege nor a kernel: what nft lists of them is in the files beside.
func TestGoldenBytes(t *testing.T) {
	if !hasIPv6() {
		t.Skip("this machine has no IPv6, and the batch no table for it")
	}
	could := canLog
	canLog = func() bool { return true }
	defer func() { canLog = could }()
	for _, name := range []string{"lab", "access-lists", "long-list", "many-translations"} {
		t.Run(name, func(t *testing.T) {
			var got strings.Builder
			conn, err := nftables.New(nftables.WithTestDial(func(req []netlink.Message) ([]netlink.Message, error) {
				var answers []netlink.Message
				for _, m := range req {
					got.WriteString(m.Header.Type.String() + " " + m.Header.Flags.String() + " " + hex.EncodeToString(m.Data) + "\n")
					if m.Header.Flags&netlink.Acknowledge != 0 {
						answers = append(answers, netlink.Message{Header: netlink.Header{Type: netlink.Error, Sequence: m.Header.Sequence, PID: m.Header.PID}, Data: make([]byte, 4)})
					}
				}
				return answers, nil
			}))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := compose(conn, goldenSpecs()[name], newTally(nil), standing{}); err != nil {
				t.Fatal(err)
			}
			if err := conn.Flush(); err != nil {
				t.Fatal(err)
			}
			golden := filepath.Join("testdata", name+".bytes")
			if *update {
				if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got.String()); diff != "" {
				t.Errorf("messages (-want +got):\n%s", diff)
			}
		})
	}
}
