package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// job is what the command line gives, and where things are.
type job struct {
	version, commit string
	epoch           string // seconds since 1970, for tools that write dates
	out, cache      string
	key             string // file of the key that upgrades are signed with
	more            string // what the kernel's command line has in addition
	minimum         int64  // of upgrades that this system takes
	service         string // package of what runs as imeproxy
}

func main() {
	j := job{}
	flag.StringVar(&j.version, "version", "0", "version of the appliance")
	flag.StringVar(&j.commit, "commit", "", "commit that it is made of")
	flag.StringVar(&j.epoch, "epoch", "1767225600", "date of everything, seconds since 1970")
	flag.StringVar(&j.out, "out", "build/image", "folder of the results")
	flag.StringVar(&j.key, "key", "build/keys/upgrade.pem", "`FILE` of the key that upgrades are signed with; made when it is not there")
	flag.StringVar(&j.more, "append", "", "what the kernel's command line has in addition")
	flag.Int64Var(&j.minimum, "minimum", 0, "oldest release, seconds since 1970, that the system can be replaced by")
	flag.StringVar(&j.service, "service", "./cmd/imeproxy", "`PACKAGE` of what runs as imeproxy; another one makes a system for tests")
	flag.StringVar(&j.cache, "cache", "build/cache", "folder of fetched packages")
	formats := flag.String("formats", "qcow2,vmdk,ova", "what to make of the raw image: qcow2, vmdk, ova")
	flag.Parse()
	if err := j.run(strings.Split(*formats, ",")); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

// name is the beginning of the names of all results.
func (j *job) name(ext string) string { return filepath.Join(j.out, "imeproxy."+ext) }

func (j *job) run(formats []string) error {
	if err := os.RemoveAll(j.out); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(j.out, "work"), 0o755); err != nil {
		return err
	}
	key, err := signingKey(j.key)
	if err != nil {
		return err
	}
	packages, err := j.fetch()
	if err != nil {
		return err
	}
	sys, err := j.system(packages, key)
	if err != nil {
		return err
	}
	if err := j.raw(sys); err != nil {
		return err
	}
	if err := j.upgrade(sys, key); err != nil {
		return err
	}
	if err := j.sbom(packages); err != nil {
		return err
	}
	for _, f := range formats {
		var err error
		switch f {
		case "qcow2":
			err = j.qcow2()
		case "vmdk":
			err = j.vmdk()
		case "ova":
			err = j.ova()
		case "":
		default:
			err = fmt.Errorf("format %q: must be qcow2, vmdk or ova", f)
		}
		if err != nil {
			return err
		}
	}
	if err := os.RemoveAll(filepath.Join(j.out, "work")); err != nil {
		return err
	}
	return j.sums()
}
