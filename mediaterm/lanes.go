package mediaterm

import (
	"bytes"
	"crypto/sha1"
	"encoding/binary"
	"fmt"
)

// HMAC-SHA1 is bound by latency: each step of SHA-1 waits for the one before it, and the four compressions of a packet for each other. Those of up
// to 16 packets side by side, each in a lane of the processor's vectors (AVX-512; 8 with AVX2), take little more than twice the time of one.

// sumJob is an HMAC-SHA1 to be made: over msg and then the first extra bytes of more, whose others are 0.
type sumJob struct {
	mac   *mac // keeps its states
	msg   []byte
	sum   [sha1.Size]byte
	more  [4]byte
	extra uint32
}

const (
	maxLanes   = 16
	lane8Tails = 1024 // where sumLanes8 finds the tails
)

// laneWork is the memory of sumLanes16 and sumLanes8, which use it as they like (see there): addresses in it mean nothing afterwards.
type laneWork [2752]byte

// sumAll makes the sums of jobs, side by side where that is faster. It allocates nothing.
func (c *crypt) sumAll(jobs []sumJob) {
	if c.short.lanes == 0 {
		c.sumEach(jobs)
		return
	}
	for len(jobs) > 0 {
		n := min(len(jobs), c.short.lanes)
		if worthLanes(jobs[:n], c.short.lanes) {
			c.sumSide(jobs[:n])
		} else {
			c.sumEach(jobs[:n])
		}
		jobs = jobs[n:]
	}
}

// worthLanes tells whether jobs are done sooner side by side, where the longest decides: a block of all lanes takes as long as two and a half
// alone, with 8 lanes as four.
func worthLanes(jobs []sumJob, lanes int) bool {
	const ends = 2 * shaBlock // the tail and the outer hash
	total, longest := 0, 0
	for i := range jobs {
		n := len(jobs[i].msg) + ends
		total += n
		longest = max(longest, n)
	}
	if lanes == maxLanes {
		return 2*total >= 5*longest
	}
	return total >= 4*longest
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
		n := min(len(jobs), c.short.lanes)
		if c.short.lanes == maxLanes {
			sumLanes16(&jobs[0], n, c.lanes)
		} else {
			c.lanes.compose(jobs[:n])
			sumLanes8(&jobs[0], n, c.lanes)
		}
		jobs = jobs[n:]
	}
}

// compose writes the tails of messages: what is left of whole blocks, the bytes more, and the padding, for a padded key before it all.
func (l *laneWork) compose(jobs []sumJob) {
	for i := range jobs {
		j := &jobs[i]
		tail := l[lane8Tails+2*shaBlock*i:][:2*shaBlock]
		n := copy(tail, j.msg[len(j.msg)&^(shaBlock-1):])
		n += copy(tail[n:], j.more[:j.extra])
		tail[n] = 0x80
		clear(tail[n+1:])
		end := (n + 1 + 8 + shaBlock - 1) &^ (shaBlock - 1)
		binary.BigEndian.PutUint64(tail[end-8:], uint64(shaBlock+len(j.msg)+int(j.extra))*8)
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
