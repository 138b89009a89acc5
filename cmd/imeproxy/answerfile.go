package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"imeproxy/proxy/answerfile"
)

// newAnswerfileCommand makes `imeproxy answerfile`: the answers to the questions of an installation.
func newAnswerfileCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "answerfile", Short: "Answers to the questions of a first installation", Args: cobra.NoArgs}
	cmd.AddCommand(&cobra.Command{
		Use: "check FILE", Short: "Check an answer file",
		Long: "Prints every mistake of an answer file with its line. A good file: no output, exit status 0; mistakes: exit status 1.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, _, err := answersOf(cmd, args[0])
			return err
		},
	})
	var output string
	generate := &cobra.Command{
		Use: "generate [--output FILE]", Short: "Ask the questions and write an answer file",
		Long: "Asks the questions of a first installation and writes the answers, passwords encrypted, to standard output or a FILE that only\n" +
			"its owner can read. Put it on a disk or CD as imeproxy-answers.txt: the appliance reads it at its first start.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return generateAnswers(cmd, output) },
	}
	generate.Flags().StringVarP(&output, "output", "o", "", "`FILE` to write")
	var config, system string
	install := &cobra.Command{
		Use: "install FILE --config FILE --system FILE", Short: "Write what follows from an answer file", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return installAnswers(cmd, args[0], config, system) },
	}
	install.Flags().StringVar(&config, "config", "", "configuration `FILE` to write")
	install.Flags().StringVar(&system, "system", "", "`FILE` of the settings of the machine to write")
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
		fmt.Fprintf(cmd.OutOrStdout(), "%s: %v\n", file, m)
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

func generateAnswers(cmd *cobra.Command, output string) error {
	text, err := answerfile.Ask(terminal{cmd.ErrOrStderr(), os.Stdin})
	if errors.Is(err, answerfile.ErrSkipped) {
		cmd.SilenceErrors = true
		return exitError(3)
	}
	if err != nil {
		return err
	}
	if output == "" {
		_, err = io.WriteString(cmd.OutOrStdout(), text)
		return err
	}
	return replaceFile(output, []byte(text))
}

func installAnswers(cmd *cobra.Command, answers, config, system string) error {
	a, text, err := answersOf(cmd, answers)
	if err != nil {
		return err
	}
	machine, err := a.System()
	if err != nil {
		return err
	}
	// The settings last: with them the machine counts as installed.
	if err := replaceFile(config, []byte(text)); err != nil {
		return err
	}
	return replaceFile(system, machine)
}

// replaceFile writes a file that nobody else can read, whole or not at all.
func replaceFile(name string, text []byte) error {
	f, err := os.CreateTemp(filepath.Dir(name), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}
