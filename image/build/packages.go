package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// debian is a package of Debian that parts of the image come from.
type debian struct {
	Name, Version, SHA256 string
	dir                   string // where its files are
}

// wanted are the packages; the kernel's is the one that its meta-package asks for now.
var wanted = []string{"linux-image-cloud-amd64", "systemd-boot-efi", "grub-pc-bin", "e2fsck-static", "ca-certificates"}

// output runs a program and gives what it prints; its errors are part of the error.
func output(name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return string(out), nil
}

// fetch brings the packages, from the cache where their checksum is there, and unpacks them.
func (j *job) fetch() (map[string]debian, error) {
	if err := os.MkdirAll(j.cache, 0o755); err != nil {
		return nil, err
	}
	all := map[string]debian{}
	for _, name := range wanted {
		real, err := dependency(name)
		if err != nil {
			return nil, err
		}
		p, err := j.fetchOne(real)
		if err != nil {
			return nil, err
		}
		all[name] = p
	}
	return all, nil
}

// dependency is the kernel that a meta-package stands for, else the package itself.
func dependency(name string) (string, error) {
	if !strings.HasPrefix(name, "linux-image-") {
		return name, nil
	}
	text, err := output("apt-cache", "show", "--no-all-versions", name)
	if err != nil {
		return "", fmt.Errorf("%w: run apt-get update", err)
	}
	found := regexp.MustCompile(`(?m)^Depends:.*?(linux-image-[0-9][^ ,]*)`).FindStringSubmatch(text)
	if found == nil {
		return "", fmt.Errorf("%s names no kernel", name)
	}
	return found[1], nil
}

func (j *job) fetchOne(name string) (debian, error) {
	text, err := output("apt-cache", "show", "--no-all-versions", name)
	if err != nil {
		return debian{}, fmt.Errorf("%w: run apt-get update", err)
	}
	field := func(key string) string {
		found := regexp.MustCompile(`(?m)^` + key + `: (.*)$`).FindStringSubmatch(text)
		if found == nil {
			return ""
		}
		return found[1]
	}
	p := debian{Name: name, Version: field("Version"), SHA256: field("SHA256"), dir: filepath.Join(j.out, "work", name)}
	if p.Version == "" || p.SHA256 == "" {
		return p, fmt.Errorf("apt knows no version of %s with a checksum", name)
	}
	file := filepath.Join(j.cache, p.SHA256+".deb")
	if sum(file) != p.SHA256 {
		if err := download(p, file); err != nil {
			return p, err
		}
	}
	_, err = output("dpkg-deb", "-x", file, p.dir)
	return p, err
}

// download lets apt fetch a package into a folder of its own, since it chooses the file's name.
func download(p debian, file string) error {
	dir, err := os.MkdirTemp(filepath.Dir(file), "fetch-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	cmd := exec.Command("apt-get", "download", "-qq", p.Name+"="+p.Version)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("fetch %s: %w: %s", p.Name, err, bytes.TrimSpace(out))
	}
	got, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err = errors.Join(err); err != nil || len(got) != 1 {
		return fmt.Errorf("fetch %s: %d files came", p.Name, len(got))
	}
	if s := sum(got[0]); s != p.SHA256 {
		return fmt.Errorf("fetch %s: SHA-256 is %s, must be %s", p.Name, s, p.SHA256)
	}
	return os.Rename(got[0], file)
}

// sum is a file's SHA-256, "" when there is no such file.
func sum(file string) string {
	data, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	s := sha256.Sum256(data)
	return hex.EncodeToString(s[:])
}
