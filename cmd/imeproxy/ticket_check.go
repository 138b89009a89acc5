package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"imeproxy/ucime/ticket"
)

func newTicketVerifyCommand() *cobra.Command {
	var f ticketFlags
	var called string
	var peers []string
	cmd := &cobra.Command{
		Use:   "verify --password-file FILE --epoch N --own-domain DOMAIN --called NUMBER --peer-domain DOMAIN... TICKET",
		Short: "Check a ticket as the proxy would and print the result as JSON",
		Long: "Prints {\"result\":\"ok\"} and exits 0, or prints the name of the counter that a proxy would count up, such as\n" +
			"{\"result\":\"Ticket DID mismatch\"}, and exits 1.",
		Example: "  imeproxy ticket verify --password-file pw --epoch 7 --own-domain b.example --called +14085551212 --peer-domain a.example TICKET",
		Args:    nArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !cmd.Flags().Changed("called") || len(peers) == 0 {
				return usage(cmd, errors.New("--called and --peer-domain are required"))
			}
			key, now, err := f.key()
			if err != nil {
				return usage(cmd, err)
			}
			text, err := ticketArgument(cmd, args[0])
			if err != nil {
				return usage(cmd, err)
			}
			v := ticket.Verifier{Key: key, OwnDomains: []string{f.ownDomain}}
			result, _ := v.Verify([]string{text}, called, peers, now)
			if err := json.NewEncoder(cmd.OutOrStdout()).Encode(map[string]string{"result": result.Label()}); err != nil {
				return told(cmd, err)
			}
			if result != ticket.OK {
				return exitStatus{1, result.Label()}
			}
			return nil
		},
	}
	f.add(cmd, "this enterprise's `DOMAIN`, which must have granted the ticket")
	cmd.Flags().StringVar(&called, "called", "", "called `NUMBER`: the user part of the Request-URI")
	cmd.Flags().StringArrayVar(&peers, "peer-domain", nil, "SIP `DOMAIN` of the caller's certificate; may stand several times")
	return cmd
}

func newTicketInspectCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "inspect [--json] TICKET",
		Short: "Print every field of a ticket, unverified",
		Long:  "Prints every field of a ticket. Nothing is verified and no password is needed: what is printed is what the ticket claims.",
		Args:  nArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := ticketArgument(cmd, args[0])
			if err != nil {
				return usage(cmd, err)
			}
			t, err := ticket.Decode(text)
			if err != nil {
				return told(cmd, err)
			}
			if asJSON {
				return told(cmd, json.NewEncoder(cmd.OutOrStdout()).Encode(t))
			}
			_, err = io.WriteString(cmd.OutOrStdout(), t.String())
			return told(cmd, err)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one line of JSON")
	return cmd
}

// ticketArgument is the argument, or standard input where it is "-". One byte
// more than a ticket may have is read, so that a longer one is seen as such.
func ticketArgument(cmd *cobra.Command, arg string) (string, error) {
	if arg != "-" {
		return arg, nil
	}
	b, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), ticket.MaxEncoded+3))
	if err != nil {
		return "", fmt.Errorf("standard input: %w", err)
	}
	return trimLineEnd(string(b)), nil
}
