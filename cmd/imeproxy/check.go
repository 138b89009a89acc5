package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"imeproxy/proxy/config"
)

// newCheckCommand makes `imeproxy check FILE`: all that can be said of a configuration without touching the system.
func newCheckCommand() *cobra.Command {
	var warnings bool
	cmd := &cobra.Command{
		Use:   "check [--warnings] FILE",
		Short: "Check a configuration file without touching the system",
		Long: "Reads a configuration and prints every mistake as FILE:LINE:COLUMN: error: TEXT, with the line, a caret under the first wrong word\n" +
			"and what would be right. A good file: no output, exit status 0; mistakes: exit status 1. Certificates and addresses in use are\n" +
			"looked at when the appliance starts, not here. A FILE of \"-\" is standard input.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, diags, err := loadConfig(args[0], cmd.InOrStdin())
			if err != nil {
				return err
			}
			for _, d := range diags {
				switch {
				case d.Severity == config.Error:
					fmt.Fprintln(cmd.OutOrStdout(), d.Error())
				case warnings:
					fmt.Fprintln(cmd.ErrOrStderr(), d.Error())
				}
			}
			if diags.HasErrors() {
				cmd.SilenceErrors = true
				return exitError(1)
			}
			return nil
		},
	}
	cmd.Flags().BoolVarP(&warnings, "warnings", "w", false, "print warnings too, on standard error; they do not change the exit status")
	return cmd
}
