package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"imeproxy/ucime/ticket"
)

func newTicketIssueCommand() *cobra.Command {
	var f ticketFlags
	var node string
	var p ticket.IssueParams
	cmd := &cobra.Command{
		Use:     "issue --password-file FILE --epoch N --own-domain DOMAIN --granted-to DOMAIN --number NUMBER...",
		Short:   "Make a ticket and print it in base64",
		Example: "  imeproxy ticket issue --password-file pw --epoch 7 --own-domain b.example --granted-to a.example --number +14085551212",
		Args:    nArgs(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if p.GrantedToDomain == "" || len(p.Numbers) == 0 {
				return usage(cmd, errors.New("--granted-to and --number are required"))
			}
			if p.Lifetime < time.Second {
				return usage(cmd, fmt.Errorf("--lifetime %v: want at least 1s", p.Lifetime))
			}
			if id, err := hex.DecodeString(node); err != nil || len(id) != len(p.GrantingNode) {
				return usage(cmd, fmt.Errorf("--node %q: want 32 hexadecimal digits", node))
			} else {
				copy(p.GrantingNode[:], id)
			}
			key, now, err := f.key()
			if err != nil {
				return usage(cmd, err)
			}
			p.GrantingDomain, p.NotBefore = f.ownDomain, now
			text, err := ticket.Issue(key, p)
			if err != nil {
				return usage(cmd, err)
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), text)
			return told(cmd, err)
		},
	}
	f.add(cmd, "granting `DOMAIN`: the enterprise whose numbers may be called")
	cmd.Flags().StringVar(&p.GrantedToDomain, "granted-to", "", "`DOMAIN` of the enterprise that may call")
	cmd.Flags().StringArrayVar(&p.Numbers, "number", nil, "`NUMBER` that may be called, + and 2 to 15 digits; stands 1 to 64 times")
	cmd.Flags().StringVar(&node, "node", strings.Repeat("0", 32), "peer ID of the granting node, 32 `HEX` digits")
	cmd.Flags().DurationVar(&p.Lifetime, "lifetime", ticket.DefaultLifetime, "`DURATION` from now for which the ticket is good")
	return cmd
}
