package testbed

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
)

// confinedUser is the unprivileged user of a confined proxy (nobody).
const confinedUser = 65534

// mediaForward is the unit's LimitNICE=-15.
var mediaForward = []string{"prlimit", "--nice=35:35"}

// mayComeForward tells whether that can be had here: it takes CAP_SYS_RESOURCE, which root in a container, or in a user namespace, often has not.
// Without it the media of a confined proxy has the place of all other programs.
func mayComeForward() bool {
	return exec.Command(mediaForward[0], append(slices.Clone(mediaForward[1:]), "true")...).Run() == nil
}

// confine gives the command that takes from the daemon all that the systemd
// unit does not give it, and hands it the files that are its own.
func (p *Proxy) confine(t T) []string {
	t.Helper()
	const caps = "-all,+net_admin,+net_raw"
	var args []string
	if mayComeForward() {
		args = mediaForward
	}
	args = append(slices.Clone(args), "setpriv", "--no-new-privs", "--bounding-set", caps, "--inh-caps", caps, "--ambient-caps", caps)
	if Entered() {
		return args // the user namespace knows no other user
	}
	dir := filepath.Dir(p.ConfigFile)
	own := func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, confinedUser, confinedUser)
	}
	if err := filepath.WalkDir(dir, own); err != nil {
		t.Fatalf("confine: %v", err)
	}
	// The lab's own folders are private to root: let the daemon through to its own.
	for _, d := range []string{p.lab.Dir, p.lab.socks} {
		if err := os.Chmod(d, 0o711); err != nil {
			t.Fatalf("confine: %v", err)
		}
	}
	p.Control = filepath.Join(p.lab.socks, "confined-"+p.e.Letter, "control")
	if err := os.MkdirAll(filepath.Dir(p.Control), 0o700); err != nil {
		t.Fatalf("confine: %v", err)
	}
	if err := os.Chown(filepath.Dir(p.Control), confinedUser, confinedUser); err != nil {
		t.Fatalf("confine: %v", err)
	}
	id := strconv.Itoa(confinedUser)
	return append(args, "--reuid", id, "--regid", id, "--clear-groups")
}
