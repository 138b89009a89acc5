// Package sshd lets operators reach the configuration shell over SSH, and nothing else of the machine.
//
// Data in: the users, networks, port and timeout of the configuration; SSH connections (RFC 4251 to 4254, by gliderlabs/ssh). Data out: sessions of
// package shell, at a terminal with line editing and pages, or one command (`ssh host show version`, exit status 0 or 1).
//
// A user logs in by password (bcrypt, in the time of one comparison for unknown users too) or by public key. Below privilege 15 a session looks and
// changes nothing. When a configuration comes into force without the user, with another privilege or without what he logged in with, the session ends.
// There is no system shell, no forwarding, no agent, no subsystem, no environment. The host key (Ed25519) is made at the first
// need and kept in the state directory, mode 600.
//
// Limits: MaxConnections at once, of which MaxHandshakes may be without a login, LoginTime for a login, MaxTries passwords a connection, the
// configured idle time (keep-alives of the client do not count), MaxSession in all. Each command is logged with user and address. Connections
// from other networks than the configured ones are closed without a word. Failed logins are told to whoever made the server, who may turn the source away.
package sshd
