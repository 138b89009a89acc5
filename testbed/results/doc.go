// Command results runs `go test` with the arguments it is given, prints what that prints, and says at the end which tests were skipped and why:
// `go test` without -v hides them, and a lab that skips everything looks like one in which everything works.
//
// Data in: the events of `go test -json`. Data out: the text of `go test` on several packages, a package when it has ended; the exit status is its own.
// The output of a failed test stands behind its result line.
package main
