// Package revision holds the life of the configuration: what has been typed, what is in force, what is on disk, and what was there before.
//
// Data in: the configuration that the daemon started with; lines and texts that operators type; the function that puts a configuration into
// force. Data out: the running configuration, the file of the startup configuration, the last Kept files that it replaced.
//
// A change acts at once when the configuration that it makes is complete: it is put into force whole, or refused whole. While something is still
// missing (an access list that a class names, the ticket of a uc-ime that is being typed), the change is kept and what was in force before
// stays in force; the operator is told what is missing. Only what is in force can be saved.
//
// Saving replaces the file by rename after fsync, so that a power cut leaves the old or the new text, never a mixture. The text that is replaced is
// kept first, under history/ in the state directory, with when and by whom. Files have mode 0600: they hold the ticket's password.
//
// A commit that waits for its confirmation gives back the configuration from before when its time is over or its session ends.
//
// Limits: Kept former configurations, MaxFile bytes a file. A Keeper is safe for concurrent use.
package revision
