package trust

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"imeproxy/tlsproxy"
)

func newCryptoImport() *cobra.Command {
	var name, bundle, pem string
	cmd := &cobra.Command{
		Use:   "import --trustpoint NAME (--pkcs12 FILE --passphrase P | --pem FILE)",
		Short: "Import key and certificate (PKCS#12), or the certificate for an enrolled key (crypto ca import)",
		Args:  cobra.NoArgs,
		RunE: withStore(func(cmd *cobra.Command, store *tlsproxy.Store) error {
			if bundle != "" {
				secret, err := passphrase(cmd, bundle)
				if err != nil {
					return err
				}
				data, err := readInput(cmd, bundle)
				if err != nil {
					return err
				}
				if err := store.ImportPKCS12(name, data, secret); err != nil {
					return err
				}
				return reportIdentity(cmd, store, name)
			}
			data, err := readInput(cmd, pem)
			if err != nil {
				return err
			}
			if err := store.ImportCertificate(tlsproxy.TrustpointSpec{Name: name}, data); err != nil {
				return err
			}
			return reportIdentity(cmd, store, name)
		}),
	}
	cmd.Flags().StringVar(&name, "trustpoint", "", "`name` of the trustpoint")
	cmd.Flags().StringVar(&bundle, "pkcs12", "", "PKCS#12 `file` with key, certificate and authorities")
	cmd.Flags().StringVar(&pem, "pem", "", "PEM `file` with the certificate for the enrolled key, its chain may follow")
	addPassphraseFlags(cmd)
	mustFlag(cmd, "trustpoint")
	cmd.MarkFlagsOneRequired("pkcs12", "pem")
	cmd.MarkFlagsMutuallyExclusive("pkcs12", "pem")
	cmd.MarkFlagsMutuallyExclusive("pem", "passphrase")
	cmd.MarkFlagsMutuallyExclusive("pem", "passphrase-file")
	return cmd
}

func newCryptoAuthenticate() *cobra.Command {
	var name, pem string
	cmd := &cobra.Command{
		Use:   "authenticate --trustpoint NAME --pem FILE",
		Short: "Trust an authority, or one peer's certificate (crypto ca authenticate)",
		Long: "Trust the certificates of a PEM file: an authority (CA true) for what it issues, any other certificate for itself alone.\n" +
			"Replaces what was authenticated for this trustpoint before.",
		Args: cobra.NoArgs,
		RunE: withStore(func(cmd *cobra.Command, store *tlsproxy.Store) error {
			data, err := readInput(cmd, pem)
			if err != nil {
				return err
			}
			if err := store.Authenticate(name, data); err != nil {
				return err
			}
			for _, c := range store.Certificates() {
				if c.Trustpoint == name && (c.Kind == "ca" || c.Kind == "pinned") {
					cmd.Printf("trustpoint %s: trusts %s (%s) until %s\n", name, c.Subject, c.Kind, c.NotAfter.Format(time.RFC3339))
				}
			}
			return nil
		}),
	}
	cmd.Flags().StringVar(&name, "trustpoint", "", "`name` of the trustpoint")
	cmd.Flags().StringVar(&pem, "pem", "", "PEM `file` with one or more certificates")
	mustFlag(cmd, "trustpoint", "pem")
	return cmd
}

// reportIdentity says what was imported, and warns of what will surprise later.
func reportIdentity(cmd *cobra.Command, store *tlsproxy.Store, name string) error {
	id, err := store.Identity(name)
	if err != nil {
		return err
	}
	leaf := id.Certificate.Leaf
	cmd.Printf("trustpoint %s: presents %s until %s, domains: %s\n", name, leaf.Subject, leaf.NotAfter.UTC().Format(time.RFC3339), strings.Join(id.Names, ", "))
	if len(id.Names) == 0 {
		fmt.Fprintln(cmd.ErrOrStderr(), "warning: the certificate holds no SIP domain (RFC 5922; wildcards do not count): other enterprises will refuse calls from and to it")
	}
	return nil
}
