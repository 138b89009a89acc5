package testbed

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"time"
)

// Audio is mono sound.
type Audio struct {
	Rate    int // samples per second
	Samples []int16
}

// Duration is the length of the sound.
func (a Audio) Duration() time.Duration {
	if a.Rate == 0 {
		return 0
	}
	return time.Duration(len(a.Samples)) * time.Second / time.Duration(a.Rate)
}

// ReadWAV reads 16-bit PCM, the first channel. A file that its writer never
// closed has no lengths in its header: then everything to the end counts.
func ReadWAV(path string) (Audio, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return Audio{}, err
	}
	if len(b) < 12 || string(b[:4]) != "RIFF" || string(b[8:12]) != "WAVE" {
		return Audio{}, fmt.Errorf("%s: no WAV file", path)
	}
	var a Audio
	channels := 0
	for at := 12; at+8 <= len(b); {
		id, size := string(b[at:at+4]), int(binary.LittleEndian.Uint32(b[at+4:]))
		body := b[at+8:]
		if id == "data" && size == 0 || size > len(body) {
			size = len(body)
		}
		body = body[:size]
		switch id {
		case "fmt ":
			if size < 16 || binary.LittleEndian.Uint16(body) != 1 || binary.LittleEndian.Uint16(body[14:]) != 16 {
				return Audio{}, fmt.Errorf("%s: not 16-bit PCM", path)
			}
			channels = int(binary.LittleEndian.Uint16(body[2:]))
			a.Rate = int(binary.LittleEndian.Uint32(body[4:]))
		case "data":
			if channels == 0 {
				return Audio{}, fmt.Errorf("%s: data before format", path)
			}
			for i := 0; i+2*channels <= len(body); i += 2 * channels {
				a.Samples = append(a.Samples, int16(binary.LittleEndian.Uint16(body[i:])))
			}
			return a, nil
		}
		at += 8 + size + size%2
	}
	return Audio{}, fmt.Errorf("%s: no sound", path)
}

// DecodeULaw turns G.711 mu-law bytes into samples.
func DecodeULaw(b []byte) []int16 {
	out := make([]int16, len(b))
	for i, u := range b {
		u = ^u
		v := (int(u&0x0f)<<3 + 0x84) << (u >> 4 & 7)
		v -= 0x84
		if u&0x80 != 0 {
			v = -v
		}
		out[i] = int16(v)
	}
	return out
}

// Tone is what was found in a recording.
type Tone struct {
	Hz    float64 // strongest frequency, 0 when there is silence alone
	Share float64 // part of the energy within 15 Hz of it, 0 to 1
	// LevelDB is the level relative to full scale.
	LevelDB float64
	// Sound is the time from the first to the last sound.
	Sound time.Duration
	// Gaps are the silences of 40 ms and more within that time.
	Gaps []Gap
}

// Gap is a silence in a recording.
type Gap struct {
	At, Length time.Duration
}

// GapTotal is the length of all gaps together.
func (t Tone) GapTotal() (sum time.Duration) {
	for _, g := range t.Gaps {
		sum += g.Length
	}
	return sum
}

// errTooShort is returned for recordings that hold too little to judge.
var errTooShort = errors.New("less than half a second of sound")

const (
	gapFrame = 20 * time.Millisecond // resolution of gaps: one packet
	// silence is the level (RMS of 32768) under which a frame is a gap:
	// about -50 dBFS, above the idle noise of mu-law.
	silence = 100
)

// Analyze finds the tone of a recording.
func Analyze(a Audio) (Tone, error) {
	frame := a.Rate * int(gapFrame/time.Millisecond) / 1000
	if frame == 0 {
		return Tone{}, errTooShort
	}
	var loud []bool
	for at := 0; at+frame <= len(a.Samples); at += frame {
		loud = append(loud, rms(a.Samples[at:at+frame]) >= silence)
	}
	first, last := 0, len(loud)-1
	for first < len(loud) && !loud[first] {
		first++
	}
	for last >= 0 && !loud[last] {
		last--
	}
	if time.Duration(last-first+1)*gapFrame < time.Second/2 {
		return Tone{}, errTooShort
	}
	t := Tone{Sound: time.Duration(last-first+1) * gapFrame}
	for i := first; i <= last; i++ {
		n := 0
		for !loud[i+n] {
			n++
		}
		if n >= 2 {
			t.Gaps = append(t.Gaps, Gap{At: time.Duration(i) * gapFrame, Length: time.Duration(n) * gapFrame})
		}
		i += n
	}
	sound := a.Samples[first*frame : (last+1)*frame]
	t.LevelDB = 20 * math.Log10(rms(sound)/32768)
	t.Hz, t.Share = strongest(sound, a.Rate)
	return t, nil
}

// rms is the root mean square of samples.
func rms(s []int16) float64 {
	var sum float64
	for _, v := range s {
		sum += float64(v) * float64(v)
	}
	return math.Sqrt(sum / float64(len(s)))
}

// strongest finds the frequency with the most energy in the middle second and
// its share of the energy. One second under a Hann window resolves 2 Hz.
func strongest(s []int16, rate int) (hz, share float64) {
	if len(s) > rate {
		s = s[(len(s)-rate)/2:][:rate]
	}
	w := make([]float64, len(s))
	var total float64
	for i, v := range s {
		w[i] = float64(v) * (0.5 - 0.5*math.Cos(2*math.Pi*float64(i)/float64(len(s))))
		total += w[i] * w[i]
	}
	if total == 0 {
		return 0, 0
	}
	bin := float64(rate) / float64(len(s)) // Hz
	power := make([]float64, int(3600/bin))
	best := 0
	for k := int(50 / bin); k < len(power); k++ {
		power[k] = goertzel(w, k)
		if power[k] > power[best] {
			best = k
		}
	}
	var near float64
	for k := max(best-int(15/bin), 0); k <= min(best+int(15/bin), len(power)-1); k++ {
		near += power[k]
	}
	// Parseval: both halves of the spectrum hold the same energy.
	return float64(best) * bin, 2 * near / (float64(len(w)) * total)
}

// goertzel is the energy of the kth bin of a discrete Fourier transform.
func goertzel(s []float64, k int) float64 {
	c := 2 * math.Cos(2*math.Pi*float64(k)/float64(len(s)))
	var s1, s2 float64
	for _, v := range s {
		s1, s2 = v+c*s1-s2, s1
	}
	return s1*s1 + s2*s2 - c*s1*s2
}
