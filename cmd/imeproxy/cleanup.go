package main

import (
	"github.com/spf13/cobra"

	"imeproxy/proxy"
	"imeproxy/proxy/observe"
	"imeproxy/proxy/trust"
)

// newCleanupCommand makes `imeproxy cleanup`: what a killed daemon left in the kernel goes without a new start.
func newCleanupCommand() *cobra.Command {
	var stateDir string
	cmd := &cobra.Command{
		Use:   "cleanup [--state-dir DIR]",
		Short: "Remove what a killed daemon left in the kernel",
		Long: "Takes back the rules, addresses, routes and settings that a daemon has made in the kernel and could not take back itself, because\n" +
			"it was killed or has crashed. A daemon that runs is left alone, and the command fails. A start does the same by itself.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := observe.NewLogger(cmd.ErrOrStderr(), observe.LogConfig{})
			if err != nil {
				return err
			}
			return proxy.Cleanup(log, stateDir)
		},
	}
	cmd.Flags().StringVar(&stateDir, "state-dir", trust.DefaultStateDir, "`DIR` where the daemon has written down what it did")
	return cmd
}
