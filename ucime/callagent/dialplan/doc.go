// Package dialplan decides over numbers for the call agent: which own numbers use the service, which far ones and whose domains
// are trusted, and how the numbers of a trunk become +E.164 and back. It holds no state but the configuration that it is made of
// and is for concurrent use.
//
// Sources: guide lines 2785-3160 (enrolled groups, exclusions, trust) and 3240-3640 (transformations). A number that no rule
// matches stays as it is; a call whose numbers are not +E.164 afterwards has no part in the service.
package dialplan
