package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"imeproxy/proxy/shell"
)

// newShellCommand makes `imeproxy shell`, the client of a running daemon's control socket. It tells the operator of its errors itself;
// main has only to exit 1 when it returns one.
func newShellCommand() *cobra.Command {
	login := false
	con := shell.Console{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}
	cmd := &cobra.Command{
		Use:   "shell [--control SOCKET] [--login] [-c COMMAND]...",
		Short: "Type commands to the running appliance",
		Long: "Carries out commands of an ASA in the running appliance, in privileged mode: each -c in its turn, or else the lines of standard\n" +
			"input. The first command that fails ends it with exit status 1; on a terminal it goes on. \"help\" lists the commands, ? what\n" +
			"may come next, Tab completes a word. A daemon that answers but takes no further shell is exit status 3.",
		Example: "  imeproxy shell -c 'show uc-ime signaling-sessions'\n  imeproxy shell -c 'show uc-ime signaling-sessions statistics | json'",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cmd.SilenceUsage, cmd.SilenceErrors = true, true // from here on; cobra still tells of wrong flags
			con.Terminal = isTerminal(os.Stdin) && isTerminal(os.Stdout)
			if con.Terminal && len(con.Commands) == 0 {
				con.Raw = rawTerminal
			}
			if login {
				con.Login = terminal{os.Stdout, os.Stdin}
			}
			// Ctrl-C ends the command that runs, the second one the shell. In a raw terminal it is a key.
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt)
			defer stop()
			context.AfterFunc(ctx, stop)
			err := shell.Run(ctx, con)
			if err != nil && !errors.Is(err, shell.ErrCommandFailed) && !errors.Is(err, context.Canceled) {
				fmt.Fprint(os.Stderr, "imeproxy shell: ", err, "\r\n") // the terminal may still be raw
			}
			return err
		},
	}
	cmd.Flags().StringVar(&con.Socket, "control", shell.DefaultSocket, "control `SOCKET` of the daemon")
	cmd.Flags().BoolVar(&login, "login", false, "ask for a user's name and password where there are users, as the console of the appliance does")
	cmd.Flags().StringArrayVarP(&con.Commands, "command", "c", nil, "carry out `COMMAND`; may stand several times")
	return cmd
}

// rawTerminal makes the terminal pass on each key, until restore.
func rawTerminal(con *shell.Console) (restore func(), err error) {
	in, out := int(os.Stdin.Fd()), int(os.Stdout.Fd())
	before, err := term.MakeRaw(in)
	if err != nil {
		return nil, fmt.Errorf("terminal: %w", err)
	}
	con.Size = func() (int, int) {
		width, height, err := term.GetSize(out)
		if err != nil || width < 1 || height < 1 {
			return 80, 24
		}
		return width, height
	}
	signals, resized := make(chan os.Signal, 1), make(chan struct{}, 1)
	signal.Notify(signals, syscall.SIGWINCH)
	go func() {
		for range signals {
			select {
			case resized <- struct{}{}:
			default:
			}
		}
	}()
	con.Resized = resized
	return func() {
		signal.Stop(signals)
		close(signals)
		_ = term.Restore(in, before)
	}, nil
}

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }
