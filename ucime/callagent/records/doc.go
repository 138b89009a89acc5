// Package records keeps the voice call records (VCRs) of finished PSTN calls until the peer server has taken them.
//
// Data in: learn.VCR. Data out: the oldest records, which stay until they are acknowledged. The queue is a file of JSON lines in
// the state directory, so a restart loses none. Limits: as many records as the configuration says (default 10,000); when it is
// full the oldest one goes and is counted. For concurrent use.
package records
