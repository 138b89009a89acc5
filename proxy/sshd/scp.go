package sshd

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/gliderlabs/ssh"

	"imeproxy/proxy/disk"
)

// maxSCPLine bounds a line of the SCP protocol.
const maxSCPLine = 1024

// scpCommand reads the command that a client of the old SCP protocol sends (scp -O, and all before OpenSSH 9): scp [-v] [-p] {-f|-t} PATH.
func scpCommand(words []string) (sink bool, name string, ok bool) {
	if len(words) < 3 || words[0] != "scp" {
		return false, "", false
	}
	flags, rest := []string{}, words[1:]
	for len(rest) > 0 && strings.HasPrefix(rest[0], "-") {
		flags, rest = append(flags, rest[0]), rest[1:]
	}
	if len(rest) == 2 && rest[0] == "--" {
		rest = rest[1:]
	}
	source := slices.Contains(flags, "-f")
	sink = slices.Contains(flags, "-t")
	if len(rest) != 1 || source == sink || slices.Contains(flags, "-r") {
		return false, "", false
	}
	return sink, rest[0], true
}

// scp is one transfer of the old protocol.
type scp struct {
	files *files
	r     *bufio.Reader
	w     io.Writer
}

// scp serves one file of disk0:.
func (s *Server) scp(c ssh.Session, sink bool, name string) {
	s.files(c, func(c ssh.Session, f *files) error {
		x := &scp{files: f, r: bufio.NewReaderSize(c, maxSCPLine), w: c}
		if sink {
			return x.sink(name)
		}
		return x.source(name)
	})
}

// fail tells the client, and ends the transfer.
func (x *scp) fail(err error) error {
	_, e := fmt.Fprintf(x.w, "\x02scp: %s\n", strings.ReplaceAll(err.Error(), "\n", " "))
	return errors.Join(err, e)
}

func (x *scp) ack() error {
	_, err := x.w.Write([]byte{0})
	return err
}

// acked waits for the client's word that it goes on.
func (x *scp) acked() error {
	b, err := x.r.ReadByte()
	if err != nil {
		return err
	}
	if b == 0 {
		return nil
	}
	text, err := x.line()
	return errors.Join(fmt.Errorf("the client says: %q", text), err)
}

func (x *scp) line() (string, error) {
	b, err := x.r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		return "", errors.New("scp: a line is too long")
	}
	return strings.TrimSuffix(string(b), "\n"), err
}

// source sends a file.
func (x *scp) source(name string) error {
	if err := x.acked(); err != nil {
		return err
	}
	f, err := x.files.disk.Read(name)
	if x.files.status("fetch", name, err) != nil {
		return x.fail(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return x.fail(err)
	}
	if _, err := fmt.Fprintf(x.w, "C0600 %d %s\n", info.Size(), info.Name()); err != nil {
		return err
	}
	if err := x.acked(); err != nil {
		return err
	}
	if _, err := io.CopyN(x.w, f, info.Size()); err != nil { // a capture that runs may grow meanwhile
		return err
	}
	if err := x.ack(); err != nil {
		return err
	}
	return x.acked()
}

// sink takes files.
func (x *scp) sink(target string) error {
	for {
		if err := x.ack(); err != nil {
			return err
		}
		line, err := x.line()
		switch {
		case errors.Is(err, io.EOF) && line == "":
			return nil
		case err != nil:
			return x.fail(err)
		case strings.HasPrefix(line, "T"): // times: not kept
			continue
		case !strings.HasPrefix(line, "C"):
			return x.fail(errors.New("files are taken alone, no folders"))
		}
		if err := x.take(line, target); err != nil {
			return x.fail(err)
		}
	}
}

// take stores the file that a line announces.
func (x *scp) take(line, target string) error {
	f := strings.SplitN(line, " ", 3)
	if len(f) != 3 {
		return errors.New("scp: malformed line")
	}
	size, err := strconv.ParseInt(f[1], 10, 64)
	if err != nil || size < 0 {
		return errors.New("scp: malformed size")
	}
	if size > disk.MaxFile {
		return disk.ErrTooLong
	}
	name := target
	if isFolder(path.Clean("/" + target)) {
		name = f[2]
	}
	w, err := x.files.disk.Create(name)
	if x.files.status("store", name, err) != nil {
		return err
	}
	defer w.Abort()
	if err := x.ack(); err != nil {
		return err
	}
	if _, err := io.CopyN(w, x.r, size); err != nil {
		return err
	}
	if err := x.acked(); err != nil {
		return err
	}
	return w.Commit()
}
