package mediaterm

import (
	"bytes"
	"crypto/sha1"
	"fmt"
)

// HMAC-SHA1 is bound by latency: each step of SHA-1 waits for the one before it, and the four compressions of a packet for each other. Those of up
// to 16 packets side by side, each in a lane of the processor's vectors, take little more than twice the time of one.

// sumJob is an HMAC-SHA1 to be made: over msg and then the first extra bytes of more, whose others are 0.
type sumJob struct {
	mac   *mac // keeps its states
	msg   []byte
	sum   [sha1.Size]byte
	more  [4]byte
	extra uint32
}

// laneCount is the number of messages that sumLanes takes.
const laneCount = 16

// laneWork is the memory of sumLanes, which uses it as it likes (see there): addresses in it mean nothing afterwards.
type laneWork [2752]byte

// sumAll makes the sums of jobs, side by side where that is faster. It allocates nothing.
func (c *crypt) sumAll(jobs []sumJob) {
	for len(jobs) > 0 {
		n := min(len(jobs), laneCount)
		if c.short.lanes && worthLanes(jobs[:n]) {
			sumLanes(&jobs[0], n, c.lanes)
		} else {
			c.sumEach(jobs[:n])
		}
		jobs = jobs[n:]
	}
}

// worthLanes tells whether jobs are done sooner side by side, where the longest decides: a block of all lanes takes some two and a half times as
// long as one alone.
func worthLanes(jobs []sumJob) bool {
	const ends = 2 * shaBlock // the tail and the outer hash
	total, longest := 0, 0
	for i := range jobs {
		n := len(jobs[i].msg) + ends
		total += n
		longest = max(longest, n)
	}
	return 2*total >= 5*longest
}

// sumEach makes the sums of jobs one after the other.
func (c *crypt) sumEach(jobs []sumJob) {
	for i := range jobs {
		j := &jobs[i]
		j.sum = *j.mac.sum(c, j.msg, j.more[:j.extra])
	}
}

// sumSide makes the sums of jobs side by side, whatever that costs.
func (c *crypt) sumSide(jobs []sumJob) {
	for len(jobs) > 0 {
		n := min(len(jobs), laneCount)
		sumLanes(&jobs[0], n, c.lanes)
		jobs = jobs[n:]
	}
}

// verifyLanes compares sums that are made side by side with the plain path: all message lengths, mixed, and 1 to 33 at a time, under several keys.
func verifyLanes(s shortcuts, sum func([]sumJob)) error {
	const lengths, most = 401, 33
	var fast, plain [3]mac
	for i := range fast {
		key := bytes.Repeat([]byte{byte(i + 1), byte(83 * i)}, authKeyLen/2)
		fast[i], plain[i] = newMAC(s, key), newMAC(shortcuts{}, key)
	}
	data := make([]byte, lengths+5)
	for i := range data {
		data[i] = byte(7*i + i>>4)
	}
	var jobs []sumJob
	for i := range 5 * lengths {
		from, n := i%5, 37*i%lengths // prime to each other: all lengths come once in a round, each time from another place and with more or fewer bytes behind
		j := sumJob{mac: &fast[i%len(fast)], msg: data[from : from+n], extra: uint32((i + i/lengths) % 5)}
		copy(j.more[:j.extra], data[n:])
		jobs = append(jobs, j)
	}
	for at, n := 0, 1; at < len(jobs); n = n%most + 1 {
		end := min(at+n, len(jobs))
		sum(jobs[at:end])
		at = end
	}
	c := newCrypt(shortcuts{})
	for i := range jobs {
		j := &jobs[i]
		if j.sum != *plain[i%len(plain)].sum(c, j.msg, j.more[:j.extra]) {
			return fmt.Errorf("HMAC-SHA1 of %d and %d bytes beside others differs", len(j.msg), j.extra)
		}
	}
	return nil
}
