package trust

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"imeproxy/tlsproxy"
)

const (
	DefaultStateDir = "/var/lib/imeproxy"
	// maxInput is above every limit of the store, which then names the limit that was passed.
	maxInput = 8 << 20
)

// NewCommand is imeproxy crypto: key pairs, trustpoints and certificates from files and standard input, before or while a daemon runs.
// It works on the state directory alone; a running daemon notices changes at its next handshake.
func NewCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "crypto",
		Short: "Key pairs, trustpoints and certificates of a state directory",
		Long: "Key pairs, trustpoints and certificates of a state directory. Works before a configuration exists and while the daemon runs;\n" +
			"new TLS handshakes use the change within a second, standing connections are untouched. FILE may be - for standard input or output.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		// A wrong file is no reason to print the usage; the message says what to do.
		SilenceUsage: true,
	}
	cmd.PersistentFlags().String("state-dir", DefaultStateDir, "state `directory`, made (mode 0700) when it is not there")
	cmd.AddCommand(newCryptoGenerate(), newCryptoEnroll(), newCryptoImport(), newCryptoAuthenticate(),
		newCryptoExport(), newCryptoList(), newCryptoRemove())
	return cmd
}

// withStore opens the state directory for a subcommand.
func withStore(run func(*cobra.Command, *tlsproxy.Store) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, _ []string) error {
		cmd.SilenceUsage = true
		dir, err := cmd.Flags().GetString("state-dir")
		if err != nil {
			return err
		}
		store, err := tlsproxy.OpenStore(dir)
		if err != nil {
			return err
		}
		return run(cmd, store)
	}
}

// readInput reads a file, or standard input for "-".
func readInput(cmd *cobra.Command, file string) ([]byte, error) {
	in := cmd.InOrStdin()
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, maxInput+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	if len(data) > maxInput {
		return nil, fmt.Errorf("%s is larger than %d bytes", file, maxInput)
	}
	return data, nil
}

func addPassphraseFlags(cmd *cobra.Command) {
	cmd.Flags().String("passphrase", "", "`passphrase` of the PKCS#12 file (other users of the machine can see it in the process list)")
	cmd.Flags().String("passphrase-file", "", "`file` whose first line is the passphrase; - for standard input")
	cmd.MarkFlagsMutuallyExclusive("passphrase", "passphrase-file")
}

// passphrase returns what the two flags say; other is the file flag that may claim standard input as well.
func passphrase(cmd *cobra.Command, other string) (string, error) {
	file, _ := cmd.Flags().GetString("passphrase-file")
	switch {
	case file == "":
		return cmd.Flags().GetString("passphrase")
	case file == "-" && other == "-":
		return "", fmt.Errorf("passphrase and PKCS#12 file cannot both come from standard input")
	}
	data, err := readInput(cmd, file)
	if err != nil {
		return "", err
	}
	line, _, _ := strings.Cut(string(data), "\n")
	return strings.TrimSuffix(line, "\r"), nil
}

// mustFlag marks a flag as required; a wrong name is a mistake of the program.
func mustFlag(cmd *cobra.Command, names ...string) {
	for _, name := range names {
		if err := cmd.MarkFlagRequired(name); err != nil {
			panic(err)
		}
	}
}
