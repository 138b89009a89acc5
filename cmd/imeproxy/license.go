package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"imeproxy/ucime/enroll"
)

// newLicenseCommand makes `imeproxy license` with issue and inspect, for the owner of an enrolment authority.
func newLicenseCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "license",
		Short: "Issue and inspect licenses of peer servers",
		Long: "Issues license files of an enrolment authority, and says what is in one. Exit status: 0 done or good, 1 not good or not\n" +
			"readable, 2 wrong usage.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newLicenseIssue(), newLicenseInspect())
	return cmd
}

func newLicenseIssue() *cobra.Command {
	var dir, expires string
	var spec enroll.LicenseSpec
	cmd := &cobra.Command{
		Use:     "issue --dir DIR --peers N --host-id MAC",
		Short:   "Make a license file and print it",
		Example: "  imeproxy license issue --dir /var/lib/imeproxy-authority --peers 5 --host-id 00:16:35:69:b2:e0 > b.lic",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			spec.Now = time.Now()
			if expires != "" {
				day, err := time.Parse(time.DateOnly, expires)
				if err != nil {
					return fmt.Errorf("--expires %q: want a date such as 2027-12-31", expires)
				}
				spec.Expires = day
			}
			key, err := enroll.LicenseKey(dir)
			if err != nil {
				return err
			}
			text, err := enroll.IssueLicense(key, spec)
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(text)
			return err
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "", "`directory` of the authority")
	cmd.Flags().IntVar(&spec.PeerCount, "peers", 1, "`number` of peer IDs, 1 to 64")
	cmd.Flags().BoolVar(&spec.Bootstrap, "bootstrap", false, "for a bootstrap server, which admits and bans members and changes the ring's settings")
	cmd.Flags().StringVar(&spec.HostID, "host-id", "", "`address` of a network interface of the member's host, or ANY")
	cmd.Flags().StringVar(&expires, "expires", "", "last `day` of the license, such as 2027-12-31 (default: it is permanent)")
	required(cmd, "dir", "host-id")
	return cmd
}

func newLicenseInspect() *cobra.Command {
	var authority string
	var host, asJSON bool
	cmd := &cobra.Command{
		Use:   "inspect --authority FILE LICENSE",
		Short: "Check a license file and say what is in it",
		Long:  "Checks a license file against the authority's file (authority.pem) and says what is in it. A LICENSE of - is read from standard input.",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := os.ReadFile(authority)
			if err != nil {
				return err
			}
			trust, err := enroll.ParseTrust(text)
			if err != nil {
				return fmt.Errorf("%s: %w", authority, err)
			}
			name, in := args[0], cmd.InOrStdin()
			if name == "-" {
				name = "standard-input"
			} else {
				f, err := os.Open(name)
				if err != nil {
					return err
				}
				defer f.Close()
				in = f
			}
			if text, err = io.ReadAll(io.LimitReader(in, 1<<20)); err != nil {
				return err
			}
			l, err := enroll.ParseLicense(name, text, trust.LicenseKey)
			if err != nil {
				return err
			}
			if err := printLicense(cmd.OutOrStdout(), l, asJSON); err != nil || !host {
				return err
			}
			interfaces, err := enroll.HostInterfaces()
			return errors.Join(err, l.CheckUse(interfaces, time.Now()))
		},
	}
	cmd.Flags().StringVar(&authority, "authority", "", "`file` of the authority: its certificate and the public key of its licenses")
	cmd.Flags().BoolVar(&host, "this-host", false, "check as well that it is good on this host, today")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	required(cmd, "authority")
	return cmd
}

func printLicense(w io.Writer, l *enroll.License, asJSON bool) error {
	expires := "permanent"
	if !l.Expires.IsZero() {
		expires = l.Expires.UTC().Add(-time.Second).Format(time.RFC3339)
	}
	ids := enroll.PeerIDs(l.Tag, l.PeerCount)
	if asJSON {
		out := struct {
			Tag     string   `json:"tag"`
			Peers   int      `json:"peercount"`
			Boot    bool     `json:"bootstrap,omitempty"`
			HostID  string   `json:"host_id"`
			FileID  string   `json:"file_id"`
			Expires string   `json:"expires"`
			IDs     []string `json:"peer_ids"`
		}{l.Tag.String(), l.PeerCount, l.Bootstrap, l.HostID, l.FileID, expires, nil}
		for _, id := range ids {
			out.IDs = append(out.IDs, id.String())
		}
		return json.NewEncoder(w).Encode(out)
	}
	fmt.Fprintf(w, "Tag:        %s\nPeer count: %d\nHost ID:    %s\nFile ID:    %s\nExpires:    %s\n", l.Tag, l.PeerCount, l.HostID, l.FileID, expires)
	if l.Bootstrap {
		fmt.Fprintln(w, "Bootstrap:  yes")
	}
	for _, id := range ids {
		fmt.Fprintf(w, "Peer ID:    %s\n", id)
	}
	return nil
}
