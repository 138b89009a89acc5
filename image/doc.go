// Package image makes what people install: the Debian package (deb/, `make deb`) and the appliance's disk (build/, `make image`), with
// the program that the appliance starts first (init/). It uses the binary imeproxy and none of the rooms. docs/install.md tells operators about it.
package image
