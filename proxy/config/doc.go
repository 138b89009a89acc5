// Package config turns the text of an ASA configuration into plain typed values and back into one canonical text.
//
// Data in: the text of a configuration file (UTF-8, lines up to 4 KiB, up to 1 MiB in all). Data out: a Config, Diagnostics that
// name every mistake with file, line, column and what would be right, the canonical text, and Resolved, which holds what the
// proxy needs with all names followed.
//
// An Edit is what an operator types on top of a configuration: it knows the mode in which the next line is read, and gives each finished
// change as lines, which Append puts behind a configuration.
//
// Four steps are kept apart. Parse reads commands in their modes and judges each by itself. Check compares commands with each
// other, as far as that needs no system: it opens no file and asks no kernel. Resolve follows names. Load is Parse and Check.
// The package changes nothing and starts nothing.
//
// The commands, their ranges and their meaning are those of the configuration guide's chapter "Cisco ASA configuration"
// (release 9.0); docs/configuration.md lists each. The text's round trip is a fixed point: Parse(c.String()).String() equals
// c.String().
//
// Limits: 4096 objects of each kind, 20,000 access-list entries, 1000 reported mistakes. The ticket password never appears in
// any text that this package makes but that of Startup; Secret.Reveal is the only other way to it.
//
// A Config is not changed by its methods, so any number of goroutines may read one.
package config
