package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"imeproxy/ucime/callagent"
	"imeproxy/ucime/callagent/config"
)

func newCallAgentCommand() *cobra.Command {
	var file string
	var check bool
	cmd := &cobra.Command{
		Use:   "callagent --config FILE",
		Short: "Run the call agent for a PBX that has no IME client",
		Long: "Runs the call agent in the foreground until SIGTERM or SIGINT, which end its calls. Logs go to standard error; `ready` alone\n" +
			"on a line of standard output tells that it serves. SIGHUP reads the configuration again; a file with mistakes changes nothing.\n" +
			"The subcommands talk to the call agent that runs.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if check {
				_, err := loadAgentConfig(file)
				return err
			}
			return runCallAgent(cmd.Context(), file, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	cmd.Flags().StringVar(&file, "config", "", "configuration `FILE`")
	cmd.Flags().BoolVar(&check, "check", false, "read the configuration, print its mistakes and end")
	_ = cmd.MarkFlagRequired("config")
	cmd.AddCommand(newAgentShowCommand(), newAgentRoutesCommand())
	return cmd
}

func loadAgentConfig(file string) (*config.Config, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return config.Parse(file, text)
}

func runCallAgent(ctx context.Context, file string, stdout, stderr io.Writer) error {
	cfg, err := loadAgentConfig(file)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(stderr, nil))
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer signal.Stop(signals)
	a, err := callagent.Start(callagent.Options{Config: cfg, Log: log})
	if err != nil {
		return err
	}
	defer a.Close()
	ctx, stop := context.WithCancel(ctx)
	ready, served := make(chan error, 1), make(chan struct{})
	go func() { a.ServeControl(ctx, ready); close(served) }()
	defer func() { stop(); <-served }()
	if err := errors.Join(<-ready, a.ServeMetrics(ctx)); err != nil {
		return err
	}
	fmt.Fprintln(stdout, "ready")
	log.Info("serving", "version", version, "config", file, "control", cfg.Control)
	for {
		select {
		case sig := <-signals:
			if sig != syscall.SIGHUP {
				log.Info("stopping", "signal", sig)
				return nil
			}
		case <-ctx.Done():
			return nil
		}
		next, err := loadAgentConfig(file)
		if err == nil {
			err = a.Reload(next)
		}
		if err != nil {
			log.Error("reload failed, the running configuration stays", "file", file, "err", err)
			continue
		}
		log.Info("configuration reloaded", "file", file)
	}
}
