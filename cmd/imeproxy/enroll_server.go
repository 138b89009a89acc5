package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os/signal"
	"path/filepath"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"imeproxy/proxy/observe"
	"imeproxy/ucime/enroll"
)

// newEnrollServerCommand makes `imeproxy enroll-server`: the authority that decides who is a member of a ring.
func newEnrollServerCommand() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "enroll-server",
		Short: "The authority that enrols peer servers in a ring",
		Long: "An enrolment authority gives one-year certificates to peer servers that hold one of its licenses, and revokes them. Its directory\n" +
			"holds its keys: who reads it can make members. See docs/enroll.md.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.PersistentFlags().StringVar(&dir, "dir", "/var/lib/imeproxy-authority", "`directory` of the authority")
	cmd.AddCommand(newAuthorityInit(&dir), newAuthorityRun(&dir), newAuthorityList(&dir),
		authorityChange(&dir, "revoke", "Revoke a license and all of its certificates for good", (*enroll.Authority).Revoke),
		authorityChange(&dir, "release", "Revoke a license's certificates and let it enrol anew with another key or host", (*enroll.Authority).Release))
	return cmd
}

func newAuthorityInit(dir *string) *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Make an authority",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := enroll.InitAuthority(*dir, name, enroll.Clock{}); err != nil {
				return err
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "authority made; members need %s\n", filepath.Join(*dir, enroll.TrustFile))
			return err
		},
	}
	cmd.Flags().StringVar(&name, "name", "imeproxy ring", "common `name` of the authority's certificate")
	return cmd
}

func newAuthorityRun(dir *string) *cobra.Command {
	var listen string
	var hosts []string
	cmd := &cobra.Command{
		Use:     "run --host NAME",
		Short:   "Serve requests for certificates and the list of revoked ones, until a signal",
		Example: "  imeproxy enroll-server run --dir /var/lib/imeproxy-authority --listen :8443 --host enroll.example",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log := slog.New(observe.LimitLog(slog.NewTextHandler(cmd.ErrOrStderr(), nil), 20, time.Now))
			a, err := enroll.OpenAuthority(*dir, enroll.Clock{})
			if err != nil {
				return err
			}
			s, err := enroll.NewServer(a, hosts, log)
			if err != nil {
				return err
			}
			l, err := net.Listen("tcp", listen)
			if err != nil {
				return err
			}
			log.Info("enroll: serving", "address", l.Addr(), "hosts", hosts)
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			if err := s.Serve(ctx, l); !errors.Is(err, context.Canceled) {
				return err
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&listen, "listen", ":8443", "`address` to listen on")
	cmd.Flags().StringSliceVar(&hosts, "host", nil, "`name` or address by which members reach the server; may stand several times")
	required(cmd, "host")
	return cmd
}

func newAuthorityList(dir *string) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the certificates that were issued",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := enroll.OpenAuthority(*dir, enroll.Clock{})
			if err != nil {
				return err
			}
			list, err := a.Issued()
			if err != nil {
				return err
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "TAG\tSERIAL\tISSUED\tUNTIL\tSTATE")
			for _, c := range list {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", c.Tag, c.Serial, c.At.UTC().Format(time.RFC3339), c.NotAfter.UTC().Format(time.RFC3339), c.State)
			}
			return w.Flush()
		},
	}
}

// authorityChange is revoke or release; a running server takes notice by itself.
func authorityChange(dir *string, use, short string, change func(*enroll.Authority, enroll.Tag) error) *cobra.Command {
	return &cobra.Command{
		Use:   use + " TAG",
		Short: short,
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			tag, err := enroll.ParseTag(args[0])
			if err != nil {
				return err
			}
			a, err := enroll.OpenAuthority(*dir, enroll.Clock{})
			if err != nil {
				return err
			}
			if err := change(a, tag); err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%sd; members learn of it within an hour\n", use)
			return err
		},
	}
}

// required marks flags; a wrong name is a mistake of the program.
func required(cmd *cobra.Command, names ...string) {
	for _, name := range names {
		if err := cmd.MarkFlagRequired(name); err != nil {
			panic(err)
		}
	}
}
