// Package image makes what people install: the Debian package (deb/, `make deb`). It uses the binary bin/imeproxy and none of the
// rooms. docs/install.md tells operators about it.
package image
