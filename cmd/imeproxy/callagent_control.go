package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"imeproxy/ucime/callagent"
	"imeproxy/ucime/learn"
)

const defaultAgentSocket = "/run/imeproxy-callagent.sock"

// agentFlags are those of every command that talks to a call agent.
func agentFlags(cmd *cobra.Command) (ask func(args ...string) error) {
	control := cmd.PersistentFlags().String("control", defaultAgentSocket, "control `SOCKET` of the call agent")
	asJSON := cmd.PersistentFlags().Bool("json", false, "print JSON")
	return func(args ...string) error {
		out, err := callagent.Ask(*control, callagent.Request{Args: args, JSON: *asJSON})
		fmt.Fprint(cmd.OutOrStdout(), out)
		return err
	}
}

func newAgentShowCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "show", Short: "Show what the call agent does"}
	ask := agentFlags(cmd)
	for what, short := range map[string]string{
		"counters": "Show the counters of the guide's tables 38 and 39, and others", "calls": "Show the calls", "alerts": "Show alerts",
		"service": "Show the service", "servers": "Show the connections to the peer servers", "vcrs": "Show the voice call records that wait for the peer server",
	} {
		cmd.AddCommand(&cobra.Command{Use: what, Short: short, Args: cobra.NoArgs, RunE: func(*cobra.Command, []string) error { return ask("show", what) }})
	}
	return cmd
}

func newAgentRoutesCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "routes", Short: "List and change learned routes"}
	ask := agentFlags(cmd)
	cmd.AddCommand(
		&cobra.Command{Use: "list", Short: "List all routes", Args: cobra.NoArgs, RunE: func(*cobra.Command, []string) error { return ask("routes", "list") }},
		&cobra.Command{Use: "add NUMBER DOMAIN TICKET URI...", Short: "Add a route, or replace the one of its number", Args: cobra.MinimumNArgs(4), RunE: func(_ *cobra.Command, a []string) error {
			return ask(append([]string{"routes", "add"}, a...)...)
		}},
		&cobra.Command{Use: "import FILE", Short: `Add the routes of a file: [{"number": ..., "domain": ..., "ticket": ..., "uris": [...]}, ...]`, Args: cobra.ExactArgs(1), RunE: func(_ *cobra.Command, a []string) error {
			text, err := os.ReadFile(a[0])
			var all []learn.Route
			if err == nil {
				err = json.Unmarshal(text, &all)
			}
			for i, r := range all {
				if one := ask(append([]string{"routes", "add", string(r.Number), r.Domain, r.Ticket}, r.URIs...)...); one != nil {
					err = errors.Join(err, fmt.Errorf("%s: route %d (%s): %w", a[0], i+1, r.Number, one))
				}
			}
			return err
		}},
	)
	for what, short := range map[string]string{"enable": "Let a route be used", "disable": "Keep a route and do not use it", "expire": "End a route now", "delete": "Remove a route"} {
		cmd.AddCommand(&cobra.Command{Use: what + " NUMBER", Short: short, Args: cobra.ExactArgs(1), RunE: func(_ *cobra.Command, a []string) error { return ask("routes", what, a[0]) }})
	}
	return cmd
}
