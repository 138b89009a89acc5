// Command build makes the appliance's image from bin/imeproxy, the first process (image/init) and Debian's kernel: `make image`.
// Debian's packages are fetched by apt, which checks them, and kept in build/cache under their checksum. Nothing is mounted and no
// root is needed. The same inputs give the same bytes; sbom.json beside the image lists the inputs.
package main
