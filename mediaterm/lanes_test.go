package mediaterm

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/binary"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// laneCrypt is ownCrypt where sums can be made side by side.
func laneCrypt(t testing.TB) *crypt {
	t.Helper()
	c := ownCrypt(t)
	if c.short.lanes == 0 {
		t.Skip("sums are not made side by side on this processor")
	}
	return c
}

// laneCrypts are of all numbers of lanes that this processor has.
func laneCrypts(t testing.TB) map[string]*crypt {
	t.Helper()
	c := laneCrypt(t)
	list := map[string]*crypt{fmt.Sprint(c.short.lanes, " lanes"): c}
	if c.short.lanes == maxLanes {
		s := c.short
		s.lanes = 8
		s, err := proven(s, nil)
		if err != nil {
			t.Fatal(err)
		}
		list["8 lanes"] = newCrypt(s)
	}
	return list
}

// RFC 2202 section 3: the test cases of HMAC-SHA1, all at once.
func TestLanesVectors(t *testing.T) {
	for name, c := range laneCrypts(t) {
		t.Run(name, func(t *testing.T) { lanesVectors(t, c) })
	}
}

func lanesVectors(t *testing.T, c *crypt) {
	t.Helper()
	repeat := func(b byte, n int) []byte {
		p := make([]byte, n)
		for i := range p {
			p[i] = b
		}
		return p
	}
	var want [][]byte
	var jobs []sumJob
	for _, v := range []struct {
		key, data []byte
		sum       string
	}{
		{repeat(0x0b, 20), []byte("Hi There"), "b617318655057264e28bc0b6fb378c8ef146be00"},
		{[]byte("Jefe"), []byte("what do ya want for nothing?"), "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"},
		{repeat(0xaa, 20), repeat(0xdd, 50), "125d7342b9ac11cd91a39af48aa17b4f63f175d3"},
		{unhex(t, "0102030405060708090a0b0c0d0e0f10111213141516171819"), repeat(0xcd, 50), "4c9007f4026250c6bc8414f9bf50c86c2d7235da"},
		{repeat(0x0c, 20), []byte("Test With Truncation"), "4c1a03424b55e07fe7f27be1d58bb9324a9a5a04"},
	} {
		m := newMAC(c.short, v.key)
		jobs = append(jobs, sumJob{mac: &m, msg: v.data})
		want = append(want, unhex(t, v.sum))
	}
	c.sumSide(jobs)
	for i, w := range want {
		if string(jobs[i].sum[:]) != string(w) {
			t.Errorf("test case %d: %x, want %x", i+1, jobs[i].sum, w)
		}
	}
}

// Sums that are not the plain path's are not used, be it that of one job in one lane; the other shortcuts stay in use.
func TestLanesAbandoned(t *testing.T) {
	c := ownCrypt(t)
	if err := verifyLanes(c.short, c.sumEach); err != nil {
		t.Errorf("right sums: %v", err)
	}
	for lane := range maxLanes {
		if err := verifyLanes(c.short, func(jobs []sumJob) {
			c.sumEach(jobs)
			if len(jobs) == 33 {
				jobs[maxLanes+lane].sum[19] ^= 1
			}
		}); err == nil {
			t.Errorf("a wrong sum in lane %d is taken for right", lane)
		}
	}
	if err := verifyLanes(c.short, func(jobs []sumJob) {
		for i := range jobs {
			if j := &jobs[i]; len(j.msg) == 400 { // as if the rest were a block shorter
				j.sum = *j.mac.sum(c, j.msg[:384], j.more[:j.extra])
			} else {
				c.sumEach(jobs[i : i+1])
			}
		}
	}); err == nil {
		t.Error("a wrong sum of the longest message is taken for right")
	}
}

// What lies behind a message is not read, nor that before it: it may not be ours.
func TestLanesReadMessagesAlone(t *testing.T) {
	page := os.Getpagesize()
	memory, err := unix.Mmap(-1, 0, 3*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(memory)
	for _, at := range []int{0, 2 * page} {
		if err := unix.Mprotect(memory[at:at+page], unix.PROT_NONE); err != nil {
			t.Fatal(err)
		}
	}
	ours := memory[page : 2*page]
	for name, c := range laneCrypts(t) {
		m := newMAC(c.short, []byte("key"))
		var jobs []sumJob
		for n := range 300 {
			jobs = append(jobs, sumJob{mac: &m, msg: ours[page-n:], extra: 4}, sumJob{mac: &m, msg: ours[:n], extra: 4})
		}
		c.sumSide(jobs)
		for i := range jobs {
			if got := jobs[i].sum; got != *m.sum(c, jobs[i].msg, jobs[i].more[:]) {
				t.Fatalf("%s: %d bytes at a border: %x", name, len(jobs[i].msg), got)
			}
		}
	}
}

// Whichever way sums are made, they are right, and nothing else in a job changes; none of it allocates.
func TestSumAll(t *testing.T) {
	crypts := map[string]*crypt{"plain": newCrypt(shortcuts{})}
	if usableLanes() > 0 {
		crypts = laneCrypts(t)
	}
	for width, c := range crypts {
		m := newMAC(c.short, []byte("key"))
		for name, lengths := range map[string][]int{
			"none": {}, "one": {172}, "two": {172, 172}, "three": {172, 172, 172}, "one long among short ones": {1400, 40, 40, 40, 60},
			"sixteen": {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}, "and one": {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17},
		} {
			t.Run(width+"/"+name, func(t *testing.T) {
				var jobs []sumJob
				for i, n := range lengths {
					jobs = append(jobs, sumJob{mac: &m, msg: make([]byte, n), more: [4]byte{1, byte(i)}, extra: 2})
				}
				if n := testing.AllocsPerRun(10, func() { c.sumAll(jobs) }); n != 0 {
					t.Errorf("%v allocations", n)
				}
				for i, j := range jobs {
					if j.sum != *m.sum(c, make([]byte, lengths[i]), []byte{1, byte(i)}) || j.mac != &m || j.more != [4]byte{1, byte(i)} || j.extra != 2 {
						t.Errorf("job %d: %+v", i, j)
					}
				}
			})
		}
	}
}

// Any keys and messages, cut into any pieces: the sums are those of the standard library.
func FuzzLanes(f *testing.F) {
	crypts := laneCrypts(f)
	f.Add([]byte("key"), []byte("some message"), uint64(3), uint8(16))
	f.Add(make([]byte, 64), make([]byte, 400), uint64(1<<40), uint8(33))
	f.Fuzz(func(t *testing.T, key, data []byte, cuts uint64, count uint8) {
		if len(key) > shaBlock { // those are hashed first, which SRTP has none of
			return
		}
		for width, c := range crypts {
			m := newMAC(c.short, key)
			jobs := make([]sumJob, int(count)+1)
			for i := range jobs {
				cuts = cuts*6364136223846793005 + 1442695040888963407
				from := int(cuts>>33) % (len(data) + 1)
				to := from + int(cuts>>17&0xffff)%(len(data)-from+1)
				j := &jobs[i]
				*j = sumJob{mac: &m, msg: data[from:to], extra: uint32(cuts>>60) % 5}
				binary.BigEndian.PutUint32(j.more[:], uint32(cuts))
				clear(j.more[j.extra:])
			}
			c.sumSide(jobs)
			for _, j := range jobs {
				h := hmac.New(sha1.New, key)
				h.Write(j.msg)
				h.Write(j.more[:j.extra])
				if want := h.Sum(nil); string(j.sum[:]) != string(want) {
					t.Fatalf("%s: %x and %x: %x, want %x", width, j.msg, j.more[:j.extra], j.sum, want)
				}
			}
		}
	})
}

// BenchmarkSums makes the sums of packets of 182 bytes (172 authenticated, and the rollover counter), side by side and one after the other.
func BenchmarkSums(b *testing.B) {
	ways := map[string]func([]sumJob){"one by one": laneCrypt(b).sumEach}
	for name, c := range laneCrypts(b) {
		ways[name] = c.sumSide
	}
	for name, sum := range ways {
		for _, n := range []int{1, 2, 3, 4, 8, 16, 29, 64} {
			jobs := make([]sumJob, n)
			for i := range jobs {
				m := newMAC(laneCrypt(b).short, []byte{byte(i)})
				jobs[i] = sumJob{mac: &m, msg: make([]byte, 172), extra: 4}
			}
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					sum(jobs)
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/packet")
			})
		}
	}
}
