// Package machine asks the first process of the appliance's image for what concerns the whole machine: its end, and its two
// systems. Elsewhere there is no such process and none of this.
//
// One connection to a Unix socket is one question: a line of JSON there, a line of JSON back ([Client.Do]). The first process
// answers with image/init/request.go.
package machine
