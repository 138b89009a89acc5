package trust

import (
	"github.com/spf13/cobra"

	"imeproxy/tlsproxy"
)

func newCryptoGenerate() *cobra.Command {
	var label, algorithm string
	var bits int
	var overwrite bool
	cmd := &cobra.Command{
		Use:   "generate --label LABEL",
		Short: "Make a key pair (crypto key generate)",
		Args:  cobra.NoArgs,
		RunE: withStore(func(cmd *cobra.Command, store *tlsproxy.Store) error {
			if err := store.GenerateKey(label, algorithm, bits, overwrite); err != nil {
				return err
			}
			cmd.Printf("key pair %s made\n", label)
			return nil
		}),
	}
	cmd.Flags().StringVar(&label, "label", "", "`name` of the key pair")
	cmd.Flags().StringVar(&algorithm, "type", "rsa", "rsa or ecdsa")
	cmd.Flags().IntVar(&bits, "modulus", 0, "`bits`: rsa 2048 to 8192 (default 2048), ecdsa 256, 384 or 521 (default 256)")
	cmd.Flags().BoolVar(&overwrite, "overwrite", false, "replace a key pair of that name")
	mustFlag(cmd, "label")
	return cmd
}

func newCryptoEnroll() *cobra.Command {
	var spec tlsproxy.TrustpointSpec
	var self bool
	cmd := &cobra.Command{
		Use:   "enroll --trustpoint NAME --keypair LABEL --subject-name X500",
		Short: "Print a certificate request (PKCS#10), or make a self-signed certificate (crypto ca enroll)",
		Long: "Prints a certificate request (PKCS#10, PEM) for a key pair; the certificate that the authority returns goes to crypto import --pem.\n" +
			"With --self a self-signed certificate is made instead and printed, for the peer's crypto authenticate.",
		Args: cobra.NoArgs,
		RunE: withStore(func(cmd *cobra.Command, store *tlsproxy.Store) error {
			spec.Enrollment = "terminal"
			if self {
				spec.Enrollment = "self"
			}
			out, err := store.Enroll(spec)
			if err != nil {
				return err
			}
			if self {
				if out, err = store.ExportIdentity(spec.Name); err != nil {
					return err
				}
			}
			_, err = cmd.OutOrStdout().Write(out)
			return err
		}),
	}
	cmd.Flags().StringVar(&spec.Name, "trustpoint", "", "`name` of the trustpoint")
	cmd.Flags().StringVar(&spec.KeyPair, "keypair", "", "`label` of the key pair (default: the trustpoint's name)")
	cmd.Flags().StringVar(&spec.SubjectName, "subject-name", "", "X.500 `name`, for instance 'cn=example.com, o=\"Example Corp\"'")
	cmd.Flags().StringVar(&spec.FQDN, "fqdn", "", "domain `name` for the subject alternative names, besides the subject's cn")
	cmd.Flags().BoolVar(&self, "self", false, "make a self-signed certificate")
	mustFlag(cmd, "trustpoint")
	return cmd
}
