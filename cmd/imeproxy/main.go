// Command imeproxy is the SIP edge proxy appliance: see README.md.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"imeproxy/proxy/trust"
)

// version and commit are set by the Makefile's linker flags.
var (
	version = "0.1.0-dev"
	commit  = ""
)

func main() { os.Exit(run(context.Background(), os.Args[1:])) }

// exitError carries an exit status for a command that has told its errors already.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// ExitCode is the status that the process ends with.
func (e exitError) ExitCode() int { return int(e) }

func run(ctx context.Context, args []string) int {
	root := newRootCommand()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	var code interface{ ExitCode() int }
	if errors.As(err, &code) {
		return code.ExitCode()
	}
	return 1
}

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "imeproxy",
		Short: "SIP edge proxy for the Intercompany Media Engine",
		Long: "imeproxy is the edge of an enterprise's telephone system: it lets calls between enterprises go over the Internet as SIP\n" +
			"over TLS and SRTP, and lets in only those that carry a valid ticket. It is configured in the command language of an ASA.",
		SilenceUsage: true,
	}
	root.AddCommand(newRunCommand(), newCheckCommand(), newShellCommand(), newTicketCommand(), trust.NewCommand(), newVersionCommand())
	return root
}

func newVersionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) {
			text := "imeproxy " + version
			if commit != "" {
				text += " (" + commit + ")"
			}
			fmt.Fprintln(cmd.OutOrStdout(), text)
		},
	}
}
