// Package source tells strangers apart by where they come from, so that limits hold for one host however many addresses it has.
//
// Data in: an address of a peer. Data out: the key by which the servers of the ring, of validation, of enrolment and of SSH count it, and the network whose members
// share what is scarce. It keeps nothing.
package source
