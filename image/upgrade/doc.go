// Package upgrade is the file by which a new system comes to an appliance: the system as it stands in a slot, what is said of it
// (Manifest), and an ed25519 signature over both.
//
//	"IMEUPG1\n"            8 bytes
//	length of the manifest 4 bytes, little-endian, at most MaxManifest
//	manifest               JSON
//	signature              64 bytes, over everything before it
//	system                 as many bytes as the manifest says, whose SHA-256 stands in it
//
// Open believes nothing before the signature is right.
package upgrade
