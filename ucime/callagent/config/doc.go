// Package config reads the call agent's configuration: text in, a typed Config or errors with file, line and column out.
//
// The words, ranges and defaults are those of the guide's tables 6 to 19 (lines 2790-4411); the form is this project's own: a
// block begins with a line at the margin, the lines that belong to it are indented, `!` and `#` begin a comment. Names are
// resolved when the whole text is read, so blocks may stand in any order. Limits: 4 MiB of text, 20,000 lines, 512 characters
// a line; numbers have at most 15 digits (E.164). The package opens no file and no socket.
package config
