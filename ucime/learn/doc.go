// Package learn turns finished PSTN calls into routes: voice call records (VCRs) from call agents, validations of them
// against the peers that claim the called numbers, pools and buckets that say when enough of them have succeeded, and the
// routes that come out.
//
// Sources: guide lines 167-318 (the rules), shared/reference/pvp.md (facts, gaps and the choices made for these).
package learn
