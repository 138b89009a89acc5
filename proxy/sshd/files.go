package sshd

import (
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"time"

	"github.com/gliderlabs/ssh"
	"github.com/pkg/sftp"

	"imeproxy/proxy/config"
	"imeproxy/proxy/disk"
)

// sftp serves disk0: to a user who may do everything.
func (s *Server) sftp(c ssh.Session) {
	s.files(c, func(c ssh.Session, h *files) error {
		srv := sftp.NewRequestServer(c, sftp.Handlers{FileGet: h, FilePut: h, FileCmd: h, FileList: h})
		// It is not closed: that would end the channel before the exit status, and a client would take that for a failure.
		if err := srv.Serve(); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		return nil
	})
}

// files runs a transfer of files for a session. serve gets the session as it is watched.
func (s *Server) files(c ssh.Session, serve func(ssh.Session, *files) error) {
	if l, ok := c.Context().Value(loginKey{}).(*login); ok {
		l.over()
	}
	log := s.log.With("user", c.User(), "from", c.RemoteAddr().String())
	u := s.cfg.Load().User(c.User())
	if u == nil || u.Privilege < config.PrivilegeAll || s.cfg.Load().EnablePassword != "" {
		// With an enable password a login alone gives no privilege, and there is no way to ask for it here.
		log.Warn("files refused: the user may not do everything")
		_, _ = io.WriteString(c.Stderr(), "permission denied\n")
		_ = c.Exit(1)
		return
	}
	if n := s.sessions.Add(1); n > MaxConnections {
		s.sessions.Add(-1)
		_ = c.Exit(1)
		return
	}
	defer s.sessions.Add(-1)
	w, done := s.watch(c, log)
	defer done()
	d, err := disk.Open(s.dir)
	if err == nil {
		defer d.Close()
		err = serve(w, &files{d, log})
	}
	if err != nil {
		log.Info("transfer of files lost", "err", err)
		_ = c.Exit(1)
		return
	}
	_ = c.Exit(0)
}

// files are those of disk0: as SFTP has them: one folder without folders in it.
type files struct {
	disk *disk.Disk
	log  *slog.Logger
}

// status is an error in the few words of SFTP; a client shows them, so what is more stands in the log.
func (f *files) status(what, name string, err error) error {
	if err == nil {
		f.log.Info("file", "action", what, "file", path.Base(name))
		return nil
	}
	f.log.Info("file refused", "action", what, "file", path.Base(name), "err", err)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return sftp.ErrSSHFxNoSuchFile
	case errors.Is(err, disk.ErrName):
		return sftp.ErrSSHFxPermissionDenied
	}
	return sftp.ErrSSHFxFailure
}

// Fileread opens a file for a client to fetch.
func (f *files) Fileread(r *sftp.Request) (io.ReaderAt, error) {
	file, err := f.disk.Read(r.Filepath)
	return file, f.status("fetch", r.Filepath, err)
}

// Filewrite takes a file from a client.
func (f *files) Filewrite(r *sftp.Request) (io.WriterAt, error) {
	if flags := r.Pflags(); flags.Append || !flags.Write {
		return nil, sftp.ErrSSHFxOpUnsupported
	}
	w, err := f.disk.Create(r.Filepath)
	if err := f.status("store", r.Filepath, err); err != nil {
		return nil, err
	}
	return &upload{Writer: w}, nil
}

// upload is a file that a client stores.
type upload struct {
	*disk.Writer
	broken bool
}

// TransferError says that the client is gone before it closed the file.
func (u *upload) TransferError(error) { u.broken = true }

// Close gives the file its name, if all of it has come.
func (u *upload) Close() error {
	if u.broken {
		u.Abort()
		return nil
	}
	return u.Commit()
}

// Filecmd removes a file. Times and modes that a client wants to set are let pass without effect: it sets them after each file.
func (f *files) Filecmd(r *sftp.Request) error {
	switch r.Method {
	case "Remove":
		return f.status("remove", r.Filepath, f.disk.Remove(r.Filepath))
	case "Setstat":
		if _, err := disk.Name(r.Filepath); err != nil && !isFolder(r.Filepath) {
			return sftp.ErrSSHFxNoSuchFile
		}
		return nil // also for a file that is still being stored
	}
	return sftp.ErrSSHFxOpUnsupported
}

// isFolder says whether a path is disk0: itself.
func isFolder(p string) bool { return p == "/" || p == "/disk0:" || p == "/." }

// Filelist lists the files, or tells of one.
func (f *files) Filelist(r *sftp.Request) (sftp.ListerAt, error) {
	switch r.Method {
	case "List":
		if !isFolder(r.Filepath) {
			return nil, sftp.ErrSSHFxNoSuchFile
		}
		all, err := f.disk.List()
		if err != nil {
			return nil, sftp.ErrSSHFxFailure
		}
		var out listing
		for _, x := range all {
			out = append(out, entry{x})
		}
		return out, nil
	case "Stat":
		if isFolder(r.Filepath) {
			return listing{folder{}}, nil
		}
		x, err := f.disk.Stat(r.Filepath)
		if err != nil {
			return nil, sftp.ErrSSHFxNoSuchFile
		}
		return listing{entry{x}}, nil
	}
	return nil, sftp.ErrSSHFxOpUnsupported
}

// listing answers for a folder.
type listing []os.FileInfo

// ListAt copies a part of the listing.
func (l listing) ListAt(to []os.FileInfo, off int64) (int, error) {
	if off >= int64(len(l)) {
		return 0, io.EOF
	}
	n := copy(to, l[off:])
	if n < len(to) {
		return n, io.EOF
	}
	return n, nil
}

// entry is a file as SFTP tells of it.
type entry struct{ disk.File }

func (e entry) Name() string       { return e.File.Name }
func (e entry) Size() int64        { return e.File.Size }
func (e entry) Mode() os.FileMode  { return 0o600 }
func (e entry) ModTime() time.Time { return e.Modified }
func (e entry) IsDir() bool        { return false }
func (e entry) Sys() any           { return nil }

// folder is disk0: itself.
type folder struct{}

func (folder) Name() string       { return "/" }
func (folder) Size() int64        { return 0 }
func (folder) Mode() os.FileMode  { return os.ModeDir | 0o700 }
func (folder) ModTime() time.Time { return time.Time{} }
func (folder) IsDir() bool        { return true }
func (folder) Sys() any           { return nil }
