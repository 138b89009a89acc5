// Package recovery resets passwords that nobody knows any more, at the console of the appliance (guide: "Reset administrator and security
// passwords"). Who may do that, and that nothing is served meanwhile, is the first process's matter (image/init/recovery.go).
//
// Data in: the stored configuration, and what a person types. Data out: the same text with other hashes in the lines of the passwords, and nothing
// else changed: also a text with mistakes in it, which keep the service from starting, can be helped.
package recovery
