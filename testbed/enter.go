package testbed

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

// enteredEnv marks a process that Enter has put into its own namespaces.
const enteredEnv = "IMEPROXY_TESTBED_ENTERED"

// Enter makes sure that this process may create network namespaces. As root
// it does nothing; else it runs the whole program again as root of a user
// namespace of its own (`unshare -Urnm`) and ends with that program's exit
// status. Call it first in main or TestMain. The error says what the machine
// lacks.
func Enter() error {
	if Entered() {
		return ownRun()
	}
	if os.Geteuid() == 0 && canUnshareNet() {
		return nil
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	// A process namespace too: when its first process ends, nothing of the
	// lab is left.
	args := append([]string{"-Urnm", "-pf", "--mount-proc", "--kill-child", self}, os.Args[1:]...)
	cmd := exec.Command("unshare", args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), enteredEnv+"=1")
	err = cmd.Run()
	if exit := new(exec.ExitError); errors.As(err, &exit) && exit.ExitCode() > 0 {
		os.Exit(exit.ExitCode())
	}
	if err != nil {
		return fmt.Errorf("the lab needs root or unprivileged user namespaces (unshare -Urnm): %w", err)
	}
	os.Exit(0)
	return nil
}

// Entered reports whether Enter has put this process into namespaces of its
// own, which end with it.
func Entered() bool { return os.Getenv(enteredEnv) != "" }

// canUnshareNet reports whether the kernel lets this process make a network
// namespace and a mount: root in a container often may not.
func canUnshareNet() bool {
	return exec.Command("unshare", "-nm", "true").Run() == nil
}

// ownRun gives the namespace a /run of its own, where `ip netns` keeps names.
func ownRun() error {
	if err := syscall.Mount("tmpfs", "/run", "tmpfs", 0, "mode=0755"); err != nil {
		return fmt.Errorf("mount a private /run: %w", err)
	}
	return nil
}
