package enroll

import (
	"bufio"
	"bytes"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"
)

// The journal is a file of lines, one JSON object each, that only grows. The owner's commands and a running server append to the same file;
// everyone reads what is new in it before a decision.

const (
	opIssue   = "issue"
	opRevoke  = "revoke"
	opRelease = "release"
)

type entry struct {
	Op       string    `json:"op"`
	At       time.Time `json:"at"`
	Tag      string    `json:"tag"`
	Serial   string    `json:"serial,omitempty"` // hexadecimal
	Key      string    `json:"key,omitempty"`    // SHA-256 of the public key
	NotAfter time.Time `json:"not_after,omitzero"`
}

type issuedEntry struct {
	entry
	revokedAt time.Time
}

type journal struct {
	name    string
	offset  int64
	entries int
	issued  map[string][]*issuedEntry // by tag
	order   []*issuedEntry
	serials map[string]*issuedEntry
	revoked map[string]bool // tags
}

func openJournal(name string) (*journal, error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDONLY, 0o600)
	if err != nil {
		return nil, err
	}
	_ = f.Close()
	j := &journal{name: name, issued: map[string][]*issuedEntry{}, serials: map[string]*issuedEntry{}, revoked: map[string]bool{}}
	return j, j.catchUp()
}

// catchUp reads what was appended since.
func (j *journal) catchUp() error {
	f, err := os.Open(j.name)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Seek(j.offset, io.SeekStart); err != nil {
		return err
	}
	r := bufio.NewReader(f)
	for {
		line, err := r.ReadBytes('\n')
		if errors.Is(err, io.EOF) { // a line without end is being written, or was when the machine died
			return nil
		}
		if err != nil {
			return err
		}
		j.offset += int64(len(line))
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		var e entry
		if err := json.Unmarshal(line, &e); err != nil {
			return fmt.Errorf("%s: entry %d: %w", j.name, j.entries+1, err)
		}
		j.take(e)
	}
}

func (j *journal) take(e entry) {
	j.entries++
	switch e.Op {
	case opIssue:
		i := &issuedEntry{entry: e}
		if j.revoked[e.Tag] { // the owner was a moment faster
			i.revokedAt = e.At
		}
		j.issued[e.Tag], j.order, j.serials[e.Serial] = append(j.issued[e.Tag], i), append(j.order, i), i
	case opRevoke, opRelease:
		for _, i := range j.issued[e.Tag] {
			if i.revokedAt.IsZero() {
				i.revokedAt = e.At
			}
		}
		j.revoked[e.Tag] = j.revoked[e.Tag] || e.Op == opRevoke
	}
}

// add appends an entry and returns when it is on the disk. A lock keeps the owner's commands and a server apart, so that what stands without a
// line end can only be what a crash left unfinished: nobody was told of it, and it is cut off.
func (j *journal) add(e entry) (err error) {
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(j.name, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil { // which unlocks
			err = fmt.Errorf("journal: %w", err)
		}
	}()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		return err
	}
	if err := j.catchUp(); err != nil {
		return err
	}
	if st, err := f.Stat(); err != nil {
		return err
	} else if st.Size() > j.offset {
		if err := f.Truncate(j.offset); err != nil {
			return err
		}
	}
	if _, err := f.Write(append(line, '\n')); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return j.catchUp()
}

// mayEnroll says why a license gets no certificate now. While one of its certificates lives, only who holds that certificate's key, or its new
// request's key, gets another: a copied license is of no use.
func (j *journal) mayEnroll(tag Tag, key string, with *x509.Certificate, now time.Time) error {
	if j.revoked[tag.String()] {
		return refuse(403, "the license is revoked")
	}
	today, living, known := 0, false, false
	for _, c := range j.issued[tag.String()] {
		if now.Sub(c.At) < 24*time.Hour {
			today++
		}
		if !c.revokedAt.IsZero() || now.After(c.NotAfter) {
			continue
		}
		living = true
		known = known || c.Key == key || with != nil && with.SerialNumber.Text(16) == c.Serial
	}
	switch {
	case today >= dailyLimit:
		return refuse(429, "%d certificates within a day are enough", today)
	case living && !known:
		return refuse(409, "the license has a certificate, and this request comes from elsewhere: the authority's owner can release it")
	}
	return nil
}
