package mapping

import (
	"bufio"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"testing"

	"go.uber.org/goleak"
)

var update = flag.Bool("update", false, "rewrite the golden files")

const (
	envInside = "MAPPING_TEST_INSIDE" // set in the copy of the test that runs under unshare
	envChild  = "MAPPING_TEST_CHILD"  // set in a process that applies the lab's spec and waits to be killed
)

// cannot says why this machine can run no test with namespaces.
var cannot string

func TestMain(m *testing.M) {
	if dir := os.Getenv(envChild); dir != "" {
		applyAndWait(dir)
	}
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f.Value.String() == strconv.Itoa(runtime.GOMAXPROCS(0)) {
		// The tests wait more than they work: for packets that must not come.
		_ = f.Value.Set("6")
	}
	if os.Geteuid() != 0 && os.Getenv(envInside) == "" {
		if out, err := exec.Command("unshare", "-Urnm", "true").CombinedOutput(); err == nil {
			os.Exit(rerun())
		} else {
			cannot = fmt.Sprintf("not root, and unshare -Urnm fails: %v: %s", err, out)
		}
	}
	goleak.VerifyTestMain(m)
}

// rerun runs this test binary as root of a user namespace.
func rerun() int {
	cmd := exec.Command("unshare", append([]string{"-Urnm", os.Args[0]}, os.Args[1:]...)...)
	cmd.Env = append(os.Environ(), envInside+"=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// applyAndWait is the daemon that gets killed: it never calls Remove.
func applyAndWait(dir string) {
	if _, err := Apply(labSpec(), dir, slog.Default()); err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
	fmt.Println("ready")
	_, _ = bufio.NewReader(os.Stdin).ReadByte()
	os.Exit(0)
}
