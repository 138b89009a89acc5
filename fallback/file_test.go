package fallback

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"
)

func TestBuiltinIsThePublishedFile(t *testing.T) {
	got, err := ParseFile([]byte("format 1\nutility        loss 20   burst 1200  pdv 400  events 7\naccommodative  loss 10   burst 600   pdv 200  events 5\r\n" +
		"nominal        loss 5    burst 300   pdv 80   events 3\nmoderate       loss 2    burst 120   pdv 40   events 2\naggressive     loss 0.5  burst 40    pdv 20   events 1\n"))
	if err != nil || got != Builtin() {
		t.Errorf("%v, %v", got, err)
	}
	again, err := ParseFile([]byte(got.String()))
	if err != nil || again != got {
		t.Errorf("printed and parsed: %v, %v", again, err)
	}
}

func TestFileForms(t *testing.T) {
	got, err := ParseFile([]byte("# ours\n\n\tformat \t1 # first\r\n  nominal events 8 pdv 8000 loss 12.345 burst 0.5#x"))
	want := Builtin()
	want[Nominal] = Thresholds{Loss: 12345, Burst: 500 * time.Microsecond, PDV: 8 * time.Second, Events: 8}
	if err != nil || got != want {
		t.Errorf("%v, %v", got, err)
	}
}

func TestFileRefused(t *testing.T) {
	good := "loss 1 burst 1 pdv 1 events 1"
	for text, lines := range map[string][]int{
		"":                    {0},
		"# nothing\n":         {0},
		"nominal " + good:     {1},
		"format 2\nnominal x": {1},
		"format 1\nformat 1":  {2},
		"format 1\nnominal " + good + "\nnominal " + good:                                                      {3},
		"format 1\nnormal " + good + "\nnominal loss 1 burst 1 pdv 1\nutility loss 101 burst 1 pdv 1 events 1": {2, 3, 4},
		"format 1\nnominal loss -1 burst 1 pdv 1 events 1":                                                     {2},
		"format 1\nnominal loss 1.2345 burst 1 pdv 1 events 1":                                                 {2},
		"format 1\nnominal loss 1 burst 8001 pdv 1 events 1":                                                   {2},
		"format 1\nnominal loss 1 burst 1 pdv 1 events 1.5":                                                    {2},
		"format 1\nnominal loss 1 burst 1 pdv 1 events 9":                                                      {2},
		"format 1\nnominal loss 1 loss 1 burst 1 pdv 1 events 1":                                               {2},
		"format 1\nnominal loss 1 burst 1 pdv 1 events":                                                        {2},
		"format 1\nNominal " + good:                                                                            {2},
		"format 1\nnominal " + good + " mos 3":                                                                 {2},
		"format 1\nn\xc3\xb6minal " + good:                                                                     {2},
		"format 1\n" + strings.Repeat("#", MaxFile):                                                            {0},
	} {
		_, err := ParseFile([]byte(text))
		var fe *FileError
		if !errors.As(err, &fe) {
			t.Errorf("%.60q is taken", text)
			continue
		}
		var at []int
		for _, l := range fe.Lines {
			at = append(at, l.Line)
		}
		if len(at) != len(lines) {
			t.Errorf("%.60q: %v", text, err)
			continue
		}
		for i := range at {
			if at[i] != lines[i] {
				t.Errorf("%.60q: %v", text, err)
			}
		}
	}
}

func FuzzParseFile(f *testing.F) {
	f.Add([]byte(Builtin().String()))
	f.Add([]byte("format 1\nnominal loss 1 burst 1 pdv 1 events 1"))
	f.Fuzz(func(t *testing.T, text []byte) {
		table, err := ParseFile(text)
		if err != nil {
			if strings.TrimSpace(err.Error()) == "" {
				t.Error("refused without a word")
			}
			return
		}
		if again, err := ParseFile([]byte(table.String())); err != nil || again != table {
			t.Errorf("%v prints as %s: %v", table, table, err)
		}
	})
}

// Packets of any kind in any order must not break the window's counts.
func FuzzStream(f *testing.F) {
	f.Add([]byte{1, 1, 1, 2, 200, 1, 0, 7, 255, 3})
	f.Fuzz(func(t *testing.T, ops []byte) {
		s := NewStream([]Format{{PayloadType: 0}, {PayloadType: 13}, {PayloadType: 101, Encoding: "telephone-event"}}, 0)
		at, seq := time.Second, uint16(65500)
		for _, op := range ops {
			at += time.Duration(op&0x1f) * 7 * time.Millisecond
			switch op >> 5 {
			case 0, 1:
				seq++
			case 2:
				seq += uint16(op & 0x1f)
			case 3:
				seq -= uint16(op & 0x1f)
			case 4:
				seq += 4000
			case 5:
				at += time.Duration(op) * 10 * time.Millisecond
			case 6:
				s.SetHold(at, op&1 == 1)
			}
			s.Packet(Packet{At: at, SSRC: uint32(op >> 7), Seq: seq, Timestamp: uint32(seq) * 160, PayloadType: []uint8{0, 0, 13, 101}[op&3], PayloadLength: 160})
			got := s.Sample(at)
			if got.Events < 0 || got.Events > 8 || got.Burst < 0 || got.PDV < 0 || got.Received > uint32(len(ops)) || got.Loss() < 0 || got.Loss() > 100 || got.Measured && (got.MOS < 1 || got.MOS > 4.5) {
				t.Fatalf("%+v", got)
			}
		}
	})
}

// The sample of the documentation is a good file, and says what is built in.
func TestDocumentedFile(t *testing.T) {
	text, err := os.ReadFile("../docs/fallback.md")
	if err != nil {
		t.Fatal(err)
	}
	_, sample, ok := strings.Cut(string(text), "```fbs\n")
	sample, _, ok2 := strings.Cut(sample, "```")
	if got, err := ParseFile([]byte(sample)); !ok || !ok2 || err != nil || got != Builtin() {
		t.Errorf("%v, %v", got, err)
	}
}
