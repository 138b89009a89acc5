// Package routes keeps the call agent's learned routes: number, domain, URIs, ticket, when learned, until when, and whether an
// administrator lets it be used (guide table 20). The table is a map in memory, and in the state directory a file of all routes with a
// journal of the changes since: a change is on the disk before it counts, and calls that look a route up never wait for the disk.
// It is for concurrent use.
//
// Data in: learn.Route, from an administrator or from the peer server. Data out: the route of a number, while it is enabled and
// has not expired. Limits: 100,000 routes, beyond which a new number is refused and counted; eight URIs a route; a ticket that is
// no ticket for that number is refused.
package routes
