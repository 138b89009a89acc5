// Package uplink is the call agent's side of VAP (docs/protocol/vap.md): it keeps the connections to the service's primary and secondary
// peer server, publishes the service with its enrolled numbers on both, uploads voice call records until one of them has stored them, and
// stores the routes that they tell of before it acknowledges them.
//
// Data in: the configuration, records.Queue. Data out: routes, through a function that returns when they are on the disk; alerts; the state
// for `show servers`. A record leaves the queue when a server has acknowledged it, so a crash of either side loses none; a server stores
// equal records once. Records go to the primary server while it takes them, else to the secondary one.
//
// Sources: guide lines 2318-2480 (server connection), 3110-3230 (service), 3840-3960 (status), 8880-9007 (counters), 9640-10041 (alerts).
// Limits: 100 records an upload, those of package vap. A Link is for concurrent use.
package uplink
