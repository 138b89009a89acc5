// Package disk is disk0:, the files that an operator may see, fetch, store and remove: sensitivity files, configurations, captures.
//
// Data in: names as operators write them (disk0:x.cfg, disk0:/x.cfg, /x.cfg) and the bytes of files. Data out: files of the state directory itself, none
// of its folders, whose names end in one of Suffixes. Keys, certificates, call records and what the daemon keeps for itself have other names, and cannot be
// reached; neither can links, nor anything outside of the directory (os.Root).
//
// A file is written under another name and takes its own when it is whole: a transfer that breaks off, or a power cut, leaves the old file. Files have
// mode 0600. Limits: MaxName, MaxFile, MaxFiles. Safe for concurrent use.
package disk
