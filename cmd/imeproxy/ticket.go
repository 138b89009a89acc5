package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"imeproxy/ucime/ticket"
)

// exitStatus is an error whose command has told the operator all there is to
// tell; main has only to end with its ExitCode.
type exitStatus struct {
	code int
	text string
}

func (e exitStatus) Error() string { return e.text }

// ExitCode is the status for os.Exit: 1 for a "no", 2 for wrong usage.
func (e exitStatus) ExitCode() int { return e.code }

// newTicketCommand makes `imeproxy ticket` with issue, verify and inspect.
// Their errors are told on standard error before they return.
func newTicketCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ticket",
		Short: "Issue, verify and inspect UC-IME tickets",
		Long: "Works on UC-IME tickets without a running appliance. Exit status: 0 done or valid, 1 not valid (verify) or not readable\n" +
			"(inspect), 2 wrong usage. A TICKET of \"-\" is read from standard input.",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usage(cmd, fmt.Errorf("unknown command %q", args[0]))
			}
			return nil
		},
		RunE:          func(cmd *cobra.Command, _ []string) error { return usage(cmd, errors.New("issue, verify or inspect?")) },
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	cmd.SetFlagErrorFunc(usage)
	cmd.AddCommand(newTicketIssueCommand(), newTicketVerifyCommand(), newTicketInspectCommand())
	for _, c := range cmd.Commands() {
		c.SilenceErrors, c.SilenceUsage = true, true
	}
	return cmd
}

// usage tells of wrong usage, for which no counter and no result exists.
func usage(cmd *cobra.Command, err error) error {
	fmt.Fprintf(cmd.ErrOrStderr(), "%s: %v\nTry '%s --help'.\n", cmd.CommandPath(), err, cmd.CommandPath())
	return exitStatus{2, err.Error()}
}

// told tells of an error, nil included, and makes exit status 1 of it.
func told(cmd *cobra.Command, err error) error {
	if err == nil {
		return nil
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "%s: %v\n", cmd.CommandPath(), err)
	return exitStatus{1, err.Error()}
}

// nArgs is cobra.ExactArgs with the exit status of wrong usage.
func nArgs(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			return usage(cmd, fmt.Errorf("%d arguments, want %d", len(args), n))
		}
		return nil
	}
}

// ticketFlags are those that issue and verify share.
type ticketFlags struct {
	passwordFile, ownDomain, now string
	epoch                        int
}

func (f *ticketFlags) add(cmd *cobra.Command, ownDomain string) {
	cmd.Flags().StringVar(&f.passwordFile, "password-file", "", "`FILE` that holds the ticket password; one line end after it is not part of it")
	cmd.Flags().IntVar(&f.epoch, "epoch", 0, "ticket epoch, 1 to 255")
	cmd.Flags().StringVar(&f.ownDomain, "own-domain", "", ownDomain)
	cmd.Flags().StringVar(&f.now, "now", "", "`TIME` in RFC 3339 that counts as now (default the clock's)")
}

// key checks the shared flags and derives the key, last because it takes time.
func (f *ticketFlags) key() (ticket.Key, time.Time, error) {
	now := time.Now()
	if f.passwordFile == "" || f.ownDomain == "" {
		return ticket.Key{}, now, errors.New("--password-file and --own-domain are required")
	}
	if f.epoch < 1 || f.epoch > 255 {
		return ticket.Key{}, now, fmt.Errorf("--epoch %d: want 1 to 255", f.epoch)
	}
	if f.now != "" {
		var err error
		if now, err = time.Parse(time.RFC3339, f.now); err != nil {
			return ticket.Key{}, now, fmt.Errorf("--now %q: want RFC 3339, such as 2026-11-22T12:00:00Z", f.now)
		}
	}
	file, err := os.Open(f.passwordFile)
	if err != nil {
		return ticket.Key{}, now, fmt.Errorf("--password-file: %w", err)
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, 4096))
	if err != nil {
		return ticket.Key{}, now, fmt.Errorf("--password-file: %w", err)
	}
	password := trimLineEnd(string(text))
	if err := ticket.CheckPassword(password); err != nil {
		return ticket.Key{}, now, fmt.Errorf("--password-file %s: %w", f.passwordFile, err)
	}
	return ticket.DeriveKey(password, uint8(f.epoch)), now, nil
}

// trimLineEnd takes off one LF or CR LF, which editors and echo add.
func trimLineEnd(s string) string {
	if t, ok := strings.CutSuffix(s, "\n"); ok {
		return strings.TrimSuffix(t, "\r")
	}
	return s
}
