package mapping

import (
	"encoding/hex"
	"strings"
	"testing"

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
			compareGolden(t, name+".bytes", "messages", got.String())
		})
	}
}
