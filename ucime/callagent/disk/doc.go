// Package disk replaces files of the call agent's state so that a crash, or the end of the machine's power, leaves the old or the new one.
package disk
