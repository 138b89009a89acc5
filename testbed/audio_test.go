package testbed

import (
	"math"
	"testing"
	"time"
)

// sine makes a tone of the given loudness (0 to 1).
func sine(hz float64, rate int, d time.Duration, loud float64) []int16 {
	s := make([]int16, int(d.Seconds()*float64(rate)))
	for i := range s {
		s[i] = int16(32767 * loud * math.Sin(2*math.Pi*hz*float64(i)/float64(rate)))
	}
	return s
}

func TestAnalyzeTellsTonesApart(t *testing.T) {
	for _, hz := range []float64{200, 440, 880, 1004, 3000} {
		tone, err := Analyze(Audio{Rate: 8000, Samples: sine(hz, 8000, 2*time.Second, 0.5)})
		if err != nil {
			t.Fatal(err)
		}
		if math.Abs(tone.Hz-hz) > 1 || tone.Share < 0.99 || len(tone.Gaps) != 0 {
			t.Errorf("%v Hz: %+v", hz, tone)
		}
		if want := 20 * math.Log10(0.5/math.Sqrt2); math.Abs(tone.LevelDB-want) > 0.1 {
			t.Errorf("%v Hz: level %.2f dB, want %.2f", hz, tone.LevelDB, want)
		}
	}
}

func TestAnalyzeFindsGapsAndOtherSounds(t *testing.T) {
	s := sine(440, 8000, 3*time.Second, 0.5)
	clear(s[8000:8800]) // 100 ms
	lead := make([]int16, 4000)
	tone, err := Analyze(Audio{Rate: 8000, Samples: append(lead, s...)})
	if err != nil {
		t.Fatal(err)
	}
	if len(tone.Gaps) != 1 || tone.Gaps[0].Length != 100*time.Millisecond || tone.Gaps[0].At != 1500*time.Millisecond {
		t.Errorf("gaps %v, want one of 100 ms at 1.5 s", tone.Gaps)
	}
	for i, v := range sine(1000, 8000, 3*time.Second, 0.5) {
		s[i] = s[i]/2 + v/2
	}
	if tone, err = Analyze(Audio{Rate: 8000, Samples: s}); err != nil || tone.Share > 0.6 {
		t.Errorf("two tones: %+v, %v; want a share of about a half", tone, err)
	}
	if _, err := Analyze(Audio{Rate: 8000, Samples: make([]int16, 16000)}); err == nil {
		t.Error("silence passed as a tone")
	}
}

func TestDecodeULaw(t *testing.T) {
	// Values of ITU-T G.711 table 2a/2b, scaled to 16 bits.
	for in, want := range map[byte]int16{0xff: 0, 0x7f: 0, 0x80: 32124, 0x00: -32124, 0xef: 132, 0x8f: 16764} {
		if got := DecodeULaw([]byte{in})[0]; got != want {
			t.Errorf("%#02x: %d, want %d", in, got, want)
		}
	}
}
