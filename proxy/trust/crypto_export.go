package trust

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"imeproxy/tlsproxy"
)

func newCryptoExport() *cobra.Command {
	var name, bundle string
	cmd := &cobra.Command{
		Use:   "export --trustpoint NAME [--pkcs12 FILE --passphrase P]",
		Short: "Print the identity certificate, or write key and certificates as PKCS#12 (crypto ca export)",
		Args:  cobra.NoArgs,
		RunE: withStore(func(cmd *cobra.Command, store *tlsproxy.Store) error {
			if bundle == "" {
				data, err := store.ExportIdentity(name)
				if err != nil {
					return err
				}
				_, err = cmd.OutOrStdout().Write(data)
				return err
			}
			secret, err := passphrase(cmd, "")
			if err != nil {
				return err
			}
			data, err := store.ExportPKCS12(name, secret)
			if err != nil {
				return err
			}
			if bundle == "-" {
				_, err = cmd.OutOrStdout().Write(data)
				return err
			}
			return writeSecret(bundle, data)
		}),
	}
	cmd.Flags().StringVar(&name, "trustpoint", "", "`name` of the trustpoint")
	cmd.Flags().StringVar(&bundle, "pkcs12", "", "PKCS#12 `file` to write (mode 0600)")
	addPassphraseFlags(cmd)
	mustFlag(cmd, "trustpoint")
	return cmd
}

// writeSecret leaves no moment in which others can read the file, one that was there with another mode included.
func writeSecret(file string, data []byte) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Chmod(0o600); err != nil {
		return err
	}
	if err := f.Truncate(0); err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		return err
	}
	return f.Close()
}

func newCryptoList() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List key pairs and certificates (show crypto ca certificates)",
		Args:  cobra.NoArgs,
		RunE: withStore(func(cmd *cobra.Command, store *tlsproxy.Store) error {
			keys, certs := store.Keys(), store.Certificates()
			if asJSON {
				if keys == nil {
					keys = []tlsproxy.KeyInfo{}
				}
				if certs == nil {
					certs = []tlsproxy.CertificateInfo{}
				}
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				return enc.Encode(map[string]any{"key_pairs": keys, "certificates": certs})
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 2, ' ', 0)
			fmt.Fprintln(w, "KEY PAIR\tTYPE\tBITS\tPROBLEM")
			for _, k := range keys {
				fmt.Fprintf(w, "%s\t%s\t%d\t%s\n", k.Label, k.Algorithm, k.Bits, k.Problem)
			}
			fmt.Fprintln(w, "\nTRUSTPOINT\tKIND\tSUBJECT\tVALID UNTIL\tDOMAINS\tSTATUS")
			for _, c := range certs {
				until := "-"
				if !c.NotAfter.IsZero() {
					until = c.NotAfter.Format("2006-01-02")
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", c.Trustpoint, c.Kind, c.Subject, until, strings.Join(c.Domains, ","), c.Status)
			}
			return w.Flush()
		}),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func newCryptoRemove() *cobra.Command {
	var name, label string
	cmd := &cobra.Command{
		Use:   "remove (--trustpoint NAME | --label LABEL)",
		Short: "Remove a trustpoint with its certificates, or a key pair",
		Args:  cobra.NoArgs,
		RunE: withStore(func(_ *cobra.Command, store *tlsproxy.Store) error {
			if name != "" {
				return store.RemoveTrustpoint(name)
			}
			return store.RemoveKey(label)
		}),
	}
	cmd.Flags().StringVar(&name, "trustpoint", "", "`name` of the trustpoint")
	cmd.Flags().StringVar(&label, "label", "", "`label` of the key pair")
	cmd.MarkFlagsOneRequired("trustpoint", "label")
	cmd.MarkFlagsMutuallyExclusive("trustpoint", "label")
	return cmd
}
