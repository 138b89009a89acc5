// Package trust is imeproxy crypto: key pairs, trustpoints and certificates of a state directory from the command line.
//
// Data in: flags, files and standard input. Data out: the state directory (package tlsproxy), certificates and requests on
// standard output, remarks on standard error. Limits: 8 MiB an input here, tlsproxy's own limits below that. It needs no running appliance and no configuration.
package trust
