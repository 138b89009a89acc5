// Package remote fetches files from other hosts and stores them there, over SFTP: the scp:// and sftp:// of the command `copy`.
//
// Data in: URLs as an ASA writes them, SCHEME://[USER[:PASSWORD]@]HOST[:PORT]/PATH, and files. Data out: files. Both schemes speak SFTP
// (draft-ietf-secsh-filexfer-02), as scp of OpenSSH 9 and later does.
//
// A host must be known before anything secret is told to it: its key stands in the state directory, in the format of OpenSSH's known_hosts, or an
// operator has accepted its fingerprint, which puts it there. A key that has changed is refused. Limits: DialTime to connect and to log in.
package remote
