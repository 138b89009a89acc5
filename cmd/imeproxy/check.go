package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"imeproxy/proxy/config"
)

// newCheckCommand makes `imeproxy check FILE`: all that can be said of a configuration without touching the system.
func newCheckCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check FILE",
		Short: "Check a configuration file without touching the system",
		Long: "Reads a configuration and prints every mistake as FILE:LINE:COLUMN: error: TEXT. A good file: no output, exit status 0.\n" +
			"Certificates and addresses in use are looked at when the appliance starts, not here. \"-\" reads standard input.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, diags, err := loadConfig(args[0], cmd.InOrStdin())
			if err != nil {
				return err
			}
			for _, d := range diags {
				if d.Severity == config.Error {
					fmt.Fprintln(cmd.OutOrStdout(), d.Error())
				}
			}
			if diags.HasErrors() {
				cmd.SilenceErrors = true
				return exitError(1)
			}
			return nil
		},
	}
}
