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

func run(ctx context.Context, args []string) int { return execute(ctx, newRootCommand(), args) }

// execute gives the exit status: 0, what the error says of it, 2 where the command was not begun because of how it was called, else 1.
func execute(ctx context.Context, root *cobra.Command, args []string) int {
	begun := false
	watch(root, &begun)
	root.SetArgs(args)
	root.SilenceErrors = true // told here, with where help is
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	var code interface{ ExitCode() int }
	if errors.As(err, &code) {
		return code.ExitCode()
	}
	switch {
	case !begun:
		fmt.Fprintf(cmd.ErrOrStderr(), "%s: %v\nTry '%s --help'.\n", cmd.CommandPath(), err, cmd.CommandPath())
		return 2
	case !cmd.SilenceErrors:
		fmt.Fprintf(cmd.ErrOrStderr(), "Error: %v\n", err)
	}
	return 1
}

// watch notes that a command was begun: its flags and arguments are right then.
func watch(cmd *cobra.Command, begun *bool) {
	if inner := cmd.RunE; inner != nil {
		cmd.RunE = func(c *cobra.Command, args []string) error {
			*begun = true
			return inner(c, args)
		}
	}
	for _, c := range cmd.Commands() {
		watch(c, begun)
	}
}

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "imeproxy",
		Short: "SIP edge proxy for the Intercompany Media Engine",
		Long: "imeproxy is the edge of an enterprise's telephone system: it lets calls between enterprises go over the Internet as SIP\n" +
			"over TLS and SRTP, and lets in only those that carry a valid ticket. It is configured in the command language of an ASA.",
		SilenceUsage: true,
		Version:      versionText(),
	}
	root.SetVersionTemplate("{{.Version}}\n")
	root.AddCommand(newRunCommand(), newCheckCommand(), newShellCommand(), newTicketCommand(), newLicenseCommand(), newEnrollServerCommand(), trust.NewCommand(), newCallAgentCommand(), newAnswerfileCommand(), newRecoverCommand(), newCleanupCommand(), newVersionCommand())
	return root
}

func newVersionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) {
			fmt.Fprintln(cmd.OutOrStdout(), versionText())
		},
	}
}

// versionText is "imeproxy VERSION (COMMIT)".
func versionText() string {
	if commit == "" {
		return "imeproxy " + version
	}
	return "imeproxy " + version + " (" + commit + ")"
}
