package netcheck

import (
	"fmt"
	"os"
	"os/exec"
	"testing"

	"go.uber.org/goleak"
)

// envInside is set in the copy of the test that runs in namespaces of its own.
const envInside = "NETCHECK_TEST_INSIDE"

// cannot says why this machine can run no test with namespaces.
var cannot string

func TestMain(m *testing.M) {
	if os.Getenv(envInside) == "" {
		flags := "-nm"
		if os.Geteuid() != 0 {
			flags = "-Urnm"
		}
		out, err := exec.Command("unshare", flags, "true").CombinedOutput()
		if err == nil {
			cmd := exec.Command("unshare", append([]string{flags, os.Args[0]}, os.Args[1:]...)...)
			cmd.Env = append(os.Environ(), envInside+"=1")
			cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
			if cmd.Run() != nil {
				os.Exit(1)
			}
			return
		}
		cannot = fmt.Sprintf("unshare %s fails: %v: %s", flags, err, out)
	}
	goleak.VerifyTestMain(m)
}
