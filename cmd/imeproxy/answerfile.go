package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"imeproxy/proxy/answerfile"
	"imeproxy/proxy/netcheck"
	"imeproxy/proxy/revision"
)

// newAnswerfileCommand makes `imeproxy answerfile`: the answers to the questions of an installation.
func newAnswerfileCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "answerfile", Short: "Answers to the questions of a first installation", Args: cobra.NoArgs}
	cmd.AddCommand(&cobra.Command{
		Use: "check FILE", Short: "Check an answer file",
		Long: "Prints every mistake of an answer file as FILE:LINE:COLUMN: error: TEXT, with the line and a caret under what is wrong; passwords are\n" +
			"not shown. A good file: no output, exit status 0; mistakes: exit status 1.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, _, err := answersOf(cmd, args[0])
			return err
		},
	})
	var output, networkLog string
	generate := &cobra.Command{
		Use: "generate [--output FILE]", Short: "Ask the questions and write an answer file",
		Long: "Asks the questions of a first installation and writes the answers, passwords encrypted, to standard output or a FILE that only\n" +
			"its owner can read. Put it on a disk or CD as imeproxy-answers.txt: the appliance reads it at its first start.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return generateAnswers(cmd, output, networkLog) },
	}
	generate.Flags().StringVarP(&output, "output", "o", "", "`FILE` to write")
	generate.Flags().StringVar(&networkLog, "network-log", "", "try the network of the answers on this machine, and write what comes of it to `FILE`")
	_ = generate.Flags().MarkHidden("network-log") // it changes the cards of the machine for a moment
	var config, system string
	var network bool
	install := &cobra.Command{
		Use: "install FILE --config FILE --system FILE", Short: "Write what follows from an answer file", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return installAnswers(cmd, args[0], config, system, network)
		},
	}
	install.Flags().StringVar(&config, "config", "", "configuration `FILE` to write")
	install.Flags().StringVar(&system, "system", "", "`FILE` of the settings of the machine to write")
	install.Flags().BoolVar(&network, "network", false, "try the network before")
	cmd.AddCommand(generate, install)
	return cmd
}

// answersOf reads and checks a file, and gives the configuration that follows. It prints mistakes itself.
func answersOf(cmd *cobra.Command, file string) (*answerfile.Answers, string, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, "", err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, answerfile.MaxSize+1))
	if err != nil {
		return nil, "", err
	}
	a, mistakes := answerfile.Parse(text)
	for _, m := range mistakes {
		fmt.Fprintln(cmd.OutOrStdout(), m.In(file))
	}
	if len(mistakes) > 0 {
		cmd.SilenceErrors = true
		return nil, "", exitError(1)
	}
	config, err := a.Config()
	return a, config, err
}

// terminal is where questions are asked: not standard output, which the answers may go to.
type terminal struct {
	io.Writer
	in *os.File
}

// ReadLine reads a byte at a time: what comes after belongs to whoever reads a password.
func (t terminal) ReadLine() (string, error) {
	var line []byte
	for b := make([]byte, 1); len(line) < 4096; {
		if _, err := t.in.Read(b); err != nil {
			return "", err
		}
		if b[0] == '\n' {
			return string(bytes.TrimSuffix(line, []byte("\r"))), nil
		}
		line = append(line, b[0])
	}
	return "", errors.New("the line is too long")
}

// Secret is no term.ReadPassword: that shows what is typed between the prompt and its call.
func (t terminal) Secret(prompt string) (string, error) {
	fd := int(t.in.Fd())
	if before, err := unix.IoctlGetTermios(fd, unix.TCGETS); err == nil {
		silent := *before
		silent.Lflag &^= unix.ECHO
		if err := unix.IoctlSetTermios(fd, unix.TCSETS, &silent); err != nil {
			return "", err
		}
		defer fmt.Fprintln(t)
		defer func() { _ = unix.IoctlSetTermios(fd, unix.TCSETS, before) }()
	}
	fmt.Fprint(t, prompt)
	return t.ReadLine()
}

// Ask shows a prompt and reads a line.
func (t terminal) Ask(prompt string) (string, error) {
	fmt.Fprint(t, prompt)
	line, err := t.ReadLine()
	return strings.TrimSpace(line), err
}

// Tell shows a line.
func (t terminal) Tell(text string) { fmt.Fprintln(t, text) }

// Exit statuses of the dialogue and of an installation that have told why.
const (
	exitSkipped exitError = 3
	exitHalted  exitError = 4
)

func generateAnswers(cmd *cobra.Command, output, networkLog string) error {
	var network *answerfile.Network
	if networkLog != "" {
		f, err := os.OpenFile(networkLog, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		if err != nil {
			return err
		}
		defer f.Close()
		network = &answerfile.Network{
			Check: func(p netcheck.Plan) ([]netcheck.Problem, error) { return netcheck.Run(cmd.Context(), p) },
			Log:   func(text string) { fmt.Fprintln(f, text) },
		}
	}
	text, err := answerfile.Ask(terminal{cmd.ErrOrStderr(), os.Stdin}, network)
	if errors.Is(err, answerfile.ErrSkipped) {
		cmd.SilenceErrors = true
		return exitSkipped
	}
	if errors.Is(err, answerfile.ErrHalted) {
		fmt.Fprintln(cmd.ErrOrStderr(), "The installation halts. Nothing was changed. With skip at a question, file view install install.log shows what did not work.")
		cmd.SilenceErrors = true
		return exitHalted
	}
	if err != nil {
		return err
	}
	if output == "" {
		_, err = io.WriteString(cmd.OutOrStdout(), text)
		return err
	}
	return revision.WriteFile(output, []byte(text))
}

// An unattended installation tries the network again for so long, with so much time in between.
const (
	retryTime  = 2 * time.Minute
	retryPause = 5 * time.Second
)

// tryNetwork tries the network of answers that nobody can be asked about, and prints what is wrong. It says whether the installation may go on.
func tryNetwork(ctx context.Context, out io.Writer, a *answerfile.Answers, check func(context.Context, netcheck.Plan) ([]netcheck.Problem, error), pause time.Duration) bool {
	for end := time.Now().Add(retryTime); ; {
		found, err := check(ctx, a.Plan())
		if err != nil {
			found = append(found, netcheck.Problem{Text: "the network cannot be tried: " + err.Error()})
		}
		halts := a.Halts(found)
		if halts && a.OnNetworkError == answerfile.PolicyRetry && time.Now().Before(end) && ctx.Err() == nil {
			select {
			case <-ctx.Done():
			case <-time.After(pause):
			}
			continue
		}
		for _, p := range found {
			fmt.Fprintf(out, "network: %s\n", p.Text)
		}
		switch {
		case halts:
			fmt.Fprintln(out, "network: the installation halts")
		case len(found) > 0:
			fmt.Fprintln(out, "network: this is ignored")
		default:
			fmt.Fprintln(out, "network: it works as it was typed")
		}
		return !halts
	}
}

func installAnswers(cmd *cobra.Command, answers, config, system string, network bool) error {
	a, text, err := answersOf(cmd, answers)
	if err != nil {
		return err
	}
	machine, err := a.System()
	if err != nil {
		return err
	}
	if network && !tryNetwork(cmd.Context(), cmd.OutOrStdout(), a, netcheck.Run, retryPause) {
		cmd.SilenceErrors = true
		return exitHalted
	}
	// The settings last: with them the machine counts as installed.
	if err := revision.WriteFile(config, []byte(text)); err != nil {
		return err
	}
	return revision.WriteFile(system, machine)
}
