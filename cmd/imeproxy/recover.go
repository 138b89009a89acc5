package main

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"imeproxy/proxy/recovery"
	"imeproxy/proxy/revision"
)

// newRecoverCommand makes `imeproxy recover`, which the first process of the appliance gives to whoever has its console.
func newRecoverCommand() *cobra.Command {
	var file, report string
	cmd := &cobra.Command{
		Use: "recover --config FILE --report FILE", Short: "Reset passwords in a configuration", Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			text, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			out, err := os.OpenFile(report, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
			if err != nil {
				return err
			}
			defer out.Close()
			return recovery.Ask(terminal{cmd.ErrOrStderr(), os.Stdin}, text, func(text []byte, r recovery.Reset) error {
				if err := revision.WriteFile(file, text); err != nil {
					return err
				}
				_, err := io.WriteString(out, fmt.Sprintln(r))
				return err
			})
		},
	}
	cmd.Flags().StringVar(&file, "config", "", "configuration `FILE` to change")
	cmd.Flags().StringVar(&report, "report", "", "`FILE` for a line of each password that was reset")
	_ = cmd.MarkFlagRequired("config")
	_ = cmd.MarkFlagRequired("report")
	return cmd
}
