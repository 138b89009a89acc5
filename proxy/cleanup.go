package proxy

import (
	"fmt"
	"log/slog"
	"os"

	"imeproxy/mapping"
)

// CheckRunning says that another daemon runs with this state directory, or in this network namespace. It changes nothing.
func CheckRunning(stateDir string) error { return mapping.CheckRunning(stateDir) }

// Cleanup takes back what a killed daemon with this state directory has left in the kernel. It needs CAP_NET_ADMIN, and fails
// while a daemon runs with the directory or in this network namespace.
func Cleanup(log *slog.Logger, stateDir string) error {
	if _, err := os.Stat(stateDir); err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	return mapping.Cleanup(log, stateDir)
}
