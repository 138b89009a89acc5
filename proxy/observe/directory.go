package observe

import (
	"fmt"
	"strings"
	"time"
)

// Directory is the answer to `dir`.
type Directory struct {
	Files List[DirectoryFile] `json:"files"`
}

// DirectoryFile is one file of disk0:.
type DirectoryFile struct {
	Name     string    `json:"name"`
	Size     int64     `json:"size"` // bytes
	Modified time.Time `json:"modified"`
}

// Text gives a file a line.
func (d Directory) Text() string {
	var b strings.Builder
	b.WriteString("Directory of disk0:/\n")
	var sum int64
	for _, f := range d.Files {
		fmt.Fprintf(&b, "%12d  %s  %s\n", f.Size, f.Modified.UTC().Format("15:04:05 Jan 02 2006"), Clean(f.Name))
		sum += f.Size
	}
	b.WriteString(Count(len(d.Files), "file") + ", " + Count(sum, "byte") + "\n")
	return b.String()
}
