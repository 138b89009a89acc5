package image

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// run gives what a command prints, and ends the test when it fails.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// binary builds the program as `make build` does, in a folder of this test: bin/imeproxy may be in use.
func binary(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "imeproxy")
	run(t, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-X main.commit=abc1234-dirty", "-o", bin, "imeproxy/cmd/imeproxy")
	return bin
}

func buildDeb(t *testing.T, bin string) string {
	t.Helper()
	cmd := exec.Command("deb/build")
	cmd.Env = append(os.Environ(), "BIN="+bin, "OUT="+t.TempDir(), "SOURCE_DATE_EPOCH=1767225600")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("deb/build: %v\n%s", err, out)
	}
	return strings.TrimSpace(string(out))
}

func TestDebianPackage(t *testing.T) {
	bin := binary(t)
	deb := buildDeb(t, bin)
	if base := filepath.Base(deb); !strings.HasPrefix(base, "imeproxy_0.1.0~dev+20260101.000000.abc1234.dirty_") {
		t.Errorf("name of the package: %s", base)
	}
	t.Run("reproducible", func(t *testing.T) {
		one, err := os.ReadFile(deb)
		if err != nil {
			t.Fatal(err)
		}
		two, err := os.ReadFile(buildDeb(t, bin))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(one, two) {
			t.Error("the same inputs gave two different packages")
		}
	})
	t.Run("content", func(t *testing.T) {
		content := run(t, "dpkg-deb", "-c", deb)
		for _, want := range []string{
			`-rwxr-xr-x root/root .* \./usr/bin/imeproxy`, `-rw-r--r-- root/root .* \./lib/systemd/system/imeproxy\.service`,
			`\./usr/lib/sysusers\.d/imeproxy\.conf`, `\./usr/share/man/man1/imeproxy-shell\.1\.gz`, `\./usr/share/doc/imeproxy/copyright`,
			`\./usr/share/doc/imeproxy/install\.md`,
		} {
			if !regexp.MustCompile(`(?m)^` + `.*` + want + `$`).MatchString(content) {
				t.Errorf("%s is missing", want)
			}
		}
		for _, line := range strings.Split(content, "\n") {
			if f := strings.Fields(line); len(f) > 5 && (strings.HasPrefix(f[5], "./etc/") || strings.HasPrefix(f[5], "./usr/local/")) {
				t.Errorf("the package holds %s: /etc and /usr/local are the operator's", f[5])
			}
		}
	})
	t.Run("unit", func(t *testing.T) { checkUnit(t, deb) })
	t.Run("life", func(t *testing.T) {
		if os.Geteuid() != 0 {
			t.Skip("needs root")
		}
		if out, err := exec.Command("unshare", "-mnpf", "--kill-child", "--mount-proc", "testdata/lifecycle", deb, t.TempDir()).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	})
}

// checkUnit lets systemd judge the unit that is in the package.
func checkUnit(t *testing.T, deb string) {
	root := t.TempDir()
	run(t, "dpkg-deb", "-x", deb, root)
	unit := filepath.Join(root, "lib/systemd/system/imeproxy.service")
	text, err := os.ReadFile(unit)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(text, []byte("/usr/local")) {
		t.Error("the unit names /usr/local, where a package puts nothing")
	}
	exposure := regexp.MustCompile(`Overall exposure level for imeproxy\.service: ([0-9.]+)`).FindStringSubmatch(run(t, "systemd-analyze", "security", "--offline=true", "--no-pager", unit))
	if exposure == nil {
		t.Fatal("systemd-analyze gives no exposure level")
	}
	if level, err := strconv.ParseFloat(exposure[1], 64); err != nil || level >= 2.5 {
		t.Errorf("exposure level %s, must be below 2.5", exposure[1])
	}
	// It judges what it finds under the paths of this machine: point it at the package's own binary.
	here := bytes.ReplaceAll(text, []byte("/usr/bin/imeproxy"), []byte(filepath.Join(root, "usr/bin/imeproxy")))
	if err := os.WriteFile(unit, here, 0o600); err != nil {
		t.Fatal(err)
	}
	if out := run(t, "systemd-analyze", "verify", "--man=no", unit); strings.Contains(out, "imeproxy") {
		t.Errorf("systemd-analyze verify: %s", out)
	}
}
