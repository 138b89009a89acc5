// Package prefetch brings memory into the processor's cache before it is needed, which Go has no word for.
//
// The state of some thousand calls is in no cache when the turn comes to one of them: a packet, or a sample of its quality. Fetched for several calls
// at once, what each needs comes side by side, where otherwise each line would be waited for. Data in: addresses. Data out: none, only time. On
// processors other than amd64 and arm64 it does nothing.
package prefetch
