// Package testbed builds a small world in network namespaces and checks what
// imeproxy does in it: two enterprises with real phones (baresip) and real
// call agents (Kamailio), a proxy in front of each, and an Internet between.
//
// Data in: the binary bin/imeproxy and its command line, nothing else of this
// project; the package never imports a room, so that a shared error cannot
// hide. Data out: recordings, captures and decoded SIP (RFC 3261) with the
// media found in them (RFC 3550), which tests judge.
//
// Every wait is for a condition with a deadline, never for a fixed time.
// Limits: Linux only; needs root, or unprivileged user namespaces (see Enter);
// the Debian packages of `make deps`. One lab takes ten namespaces and about
// 200 MB. Names begin with the process id, so that labs do not meet, and the
// next lab removes what a killed one left.
package testbed
