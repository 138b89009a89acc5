package mediaterm

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// engineEnv names the engine that the tests of a process use; without it that is engine sockets.
const engineEnv = "MEDIATERM_TEST_ENGINE"

// testEngine is the engine of newTerminator, nil for engine sockets.
var testEngine *TProxy

// openTestEngine opens engine tproxy and makes the rules that the mapping room makes for the appliance.
func openTestEngine() error {
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		return fmt.Errorf("ip link set lo up: %w: %s", err, out)
	}
	var err error
	if testEngine, err = OpenTProxy(TProxyConfig{Workers: 2, PortLimit: 1 << 20}); err != nil {
		return err
	}
	var rules strings.Builder
	rules.WriteString("table ip media_test {\nchain in {\ntype filter hook prerouting priority mangle\n")
	ports := testEngine.Steer().Ports
	for i, port := range ports {
		fmt.Fprintf(&rules, "ip daddr { %s, %s } udp dport & %d == %d tproxy to 127.0.0.1:%d accept\n",
			ourInside, ourOutside, (len(ports)-1)<<1, i<<1, port)
	}
	rules.WriteString("}\n}\n")
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(rules.String())
	if out, err := cmd.CombinedOutput(); err != nil {
		return errors.Join(fmt.Errorf("nft: %w: %s", err, out), testEngine.Close())
	}
	return testEngine.Probe(ourOutside, 20000, 20100)
}

// tproxyProcess runs the tests of a pattern in a network namespace of their own with engine tproxy.
func tproxyProcess(t *testing.T, pattern string) {
	t.Helper()
	for _, tool := range []string{"unshare", "nft", "ip"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("this machine has no %s", tool)
		}
	}
	if out, err := exec.Command("unshare", "-Urn", "true").CombinedOutput(); err != nil {
		t.Skipf("no network namespace of its own: %v: %s", err, out)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"-Urn", self, "-test.run", pattern, "-test.timeout", "5m"}
	if testing.Verbose() {
		args = append(args, "-test.v")
	}
	if testing.Short() {
		args = append(args, "-test.short")
	}
	cmd := exec.Command("unshare", args...)
	cmd.Env = append(os.Environ(), engineEnv+"="+EngineTProxy)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("with engine %s: %v\n%s", EngineTProxy, err, out)
	} else if bytes.Contains(out, []byte("no tests to run")) {
		t.Errorf("pattern %s: %s", pattern, out)
	}
}

// Every test of the package once more with engine tproxy.
func TestEngineTProxy(t *testing.T) {
	if testEngine != nil {
		t.Skip("this is the process that it starts")
	}
	tproxyProcess(t, ".")
}

func engineName() string {
	if testEngine != nil {
		return EngineTProxy
	}
	return EngineSockets
}
