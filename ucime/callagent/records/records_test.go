package records

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"imeproxy/ucime/learn"
)

func vcr(i int) learn.VCR {
	begin := time.Date(2026, 1, 2, 3, 4, 5, int(6*time.Millisecond), time.UTC)
	return learn.VCR{Role: learn.Originating, Called: learn.Number(fmt.Sprintf("+1408555%04d", i)), Caller: "+14085551111", Start: begin, Stop: begin.Add(time.Minute)}
}

func TestRecordsStayUntilTaken(t *testing.T) {
	dir := t.TempDir()
	q, err := Open(dir, 3)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		if err := q.Put(vcr(i)); err != nil {
			t.Fatal(err)
		}
	}
	if n, dropped := q.Counts(); n != 3 || dropped != 2 {
		t.Errorf("%d wait, %d dropped", n, dropped)
	}
	got, _ := q.Take(2)
	if len(got) != 2 || got[0] != vcr(2) {
		t.Fatalf("%+v", got)
	}
	q.Close()
	if f, err := os.OpenFile(filepath.Join(dir, "vcrs.jsonl"), os.O_APPEND|os.O_WRONLY, 0); err == nil {
		f.WriteString(`{"Role":1,"Cal`) // a crash
		f.Close()
	}
	if q, err = Open(dir, 10); err != nil {
		t.Fatal(err)
	}
	// The file of the full queue may still hold what was dropped; the newest are all there.
	got, mark := q.Take(10)
	if got[len(got)-1] != vcr(4) {
		t.Fatalf("%+v", got)
	}
	if err := q.Put(vcr(9)); err != nil {
		t.Fatal(err)
	}
	if err := q.Done(mark); err != nil {
		t.Fatal(err)
	}
	if err := q.Done(mark); err != nil { // twice is once
		t.Fatal(err)
	}
	q.Close()
	if q, err = Open(dir, 10); err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	if got, _ := q.Take(10); len(got) != 1 || got[0] != vcr(9) {
		t.Errorf("%+v", got)
	}
}

func TestAcknowledgingWhatWasDroppedTakesNothingElse(t *testing.T) {
	q, err := Open(t.TempDir(), 2)
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	put := func(i int) {
		if err := q.Put(vcr(i)); err != nil {
			t.Fatal(err)
		}
	}
	put(0)
	_, mark := q.Take(1)
	put(1)
	put(2) // drops 0
	if err := q.Done(mark); err != nil {
		t.Fatal(err)
	}
	if got, _ := q.Take(5); len(got) != 2 || got[0] != vcr(1) {
		t.Errorf("%+v", got)
	}
}
