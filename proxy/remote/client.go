package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

// DialTime bounds connecting and logging in.
const DialTime = 15 * time.Second

// UnknownHost says that a host's key is not known yet.
type UnknownHost struct {
	Host        string
	Fingerprint string // SHA-256, as ssh-keygen -l shows it
	key         ssh.PublicKey
}

func (u *UnknownHost) Error() string {
	return fmt.Sprintf("the key of host %s is not known: its fingerprint is %s", u.Host, u.Fingerprint)
}

// Hosts are the known hosts of a state directory. Safe for concurrent use between processes as far as appending to a file is.
type Hosts struct{ file string }

// NewHosts gives those of a state directory.
func NewHosts(stateDir string) Hosts { return Hosts{filepath.Join(stateDir, "known_hosts")} }

// Accept takes a host among the known ones.
func (h Hosts) Accept(u *UnknownHost) error {
	f, err := os.OpenFile(h.file, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("known hosts: %w", err)
	}
	_, err = f.WriteString(knownhosts.Line([]string{knownhosts.Normalize(u.Host)}, u.key) + "\n")
	return errors.Join(err, f.Sync(), f.Close())
}

// check is a host key callback.
func (h Hosts) check(host string, addr net.Addr, key ssh.PublicKey) error {
	known, err := knownhosts.New(h.file)
	unknown := &UnknownHost{Host: host, Fingerprint: ssh.FingerprintSHA256(key), key: key}
	if errors.Is(err, fs.ErrNotExist) {
		return unknown
	}
	if err != nil {
		return fmt.Errorf("known hosts: %w", err)
	}
	err = known(host, addr, key)
	var wrong *knownhosts.KeyError
	if errors.As(err, &wrong) && len(wrong.Want) == 0 {
		return unknown
	}
	if errors.As(err, &wrong) {
		return fmt.Errorf("host %s has another key than before, %s: somebody may be in between. If it was changed, remove its line from %s", host, unknown.Fingerprint, h.file)
	}
	return err
}

// session is a connection to a host. When ctx ends it is cut.
func (h Hosts) session(ctx context.Context, p Place, use func(*sftp.Client) error) error {
	dial, cancel := context.WithTimeout(ctx, DialTime)
	defer cancel()
	var d net.Dialer
	raw, err := d.DialContext(dial, "tcp", p.Host)
	if err != nil {
		return fmt.Errorf("%s: %w", p.Host, err)
	}
	defer raw.Close()
	defer context.AfterFunc(ctx, func() { raw.Close() })()
	_ = raw.SetDeadline(time.Now().Add(DialTime))
	var refused error // the library wraps it without its type
	answer := func(_, _ string, questions []string, _ []bool) ([]string, error) {
		out := make([]string, len(questions))
		for i := range out {
			out[i] = p.Password
		}
		return out, nil
	}
	conn, chans, reqs, err := ssh.NewClientConn(raw, p.Host, &ssh.ClientConfig{
		User: p.User, Auth: []ssh.AuthMethod{ssh.Password(p.Password), ssh.KeyboardInteractive(answer)},
		HostKeyCallback: func(host string, addr net.Addr, key ssh.PublicKey) error {
			refused = h.check(host, addr, key)
			return refused
		},
	})
	switch {
	case refused != nil:
		return refused
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return fmt.Errorf("login as %s at %s: %w", p.User, p.Host, err)
	}
	_ = raw.SetDeadline(time.Time{})
	client := ssh.NewClient(conn, chans, reqs)
	defer client.Close()
	files, err := sftp.NewClient(client)
	if err != nil {
		return fmt.Errorf("%s offers no SFTP: %w", p.Host, err)
	}
	defer files.Close()
	if err := use(files); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("%s on %s: %w", p.Path, p.Host, err)
	}
	return nil
}

// Fetch copies a file from its place. The error is an *UnknownHost when an operator must accept the host first.
func (h Hosts) Fetch(ctx context.Context, p Place, to io.Writer) error {
	return h.session(ctx, p, func(c *sftp.Client) error {
		f, err := c.Open(p.Path)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(to, f)
		return err
	})
}

// Store copies a file to its place.
func (h Hosts) Store(ctx context.Context, p Place, from io.Reader) error {
	return h.session(ctx, p, func(c *sftp.Client) error {
		f, err := c.OpenFile(p.Path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, from)
		return errors.Join(err, f.Close())
	})
}
