package callagent

import (
	"bufio"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"imeproxy/ucime/callagent/records"
	"imeproxy/ucime/callagent/routes"
	"imeproxy/ucime/learn"
)

// writerDir names the state directory of a program that writes until it is killed, see writeUntilKilled.
const writerDir = "CALLAGENT_TEST_WRITER"

// killedLimit is more than the records that wait at any time: beyond it the oldest go, which is no loss.
const killedLimit = 200

func killedNumber(i int) learn.Number { return learn.Number(fmt.Sprintf("+1212%07d", i)) }

// writeUntilKilled keeps records and routes as the call agent does, and says each time what it is about to take away and what is acknowledged.
func writeUntilKilled(dir string) error {
	q, err := records.Open(dir, killedLimit)
	if err != nil {
		return err
	}
	r, err := routes.Open(dir, time.Now)
	if err != nil {
		return err
	}
	var from int
	if _, err := fmt.Sscan(os.Getenv(writerDir+"_FROM"), &from); err != nil {
		return err
	}
	tickets := strings.Fields(os.Getenv(writerDir + "_TICKETS"))
	for i := from; ; i++ {
		v := learn.VCR{Role: learn.Originating, Called: killedNumber(i), Caller: own, Start: time.Unix(int64(i), 0).UTC(), Stop: time.Unix(int64(i)+60, 0).UTC()}
		if err := q.Put(v); err != nil {
			return err
		}
		fmt.Println("put", i)
		if i%5 == 4 {
			vcrs, mark := q.Take(5)
			for _, v := range vcrs {
				fmt.Println("take", v.Start.Unix())
			}
			if err := q.Done(mark); err != nil {
				return err
			}
		}
		k := i % len(tickets)
		n := killedNumber(k)
		fmt.Println("change", k)
		if i/len(tickets)%3 == 2 {
			err = r.Forget(n)
		} else {
			err = r.Learn(learn.Route{Number: n, Domain: "b.example", Ticket: tickets[k], URIs: []string{fmt.Sprintf("sip:h%d.example", i)}})
		}
		if err != nil && err != routes.ErrUnknown {
			return err
		}
		fmt.Println("route", k, i)
	}
}

// keeper is what must be in the files.
type keeper struct {
	next    int
	records map[int]bool // acknowledged; false: it may have been taken away since
	routes  map[int]int  // the change that was acknowledged last; -1: one was under way
}

// read takes what a writer said until it was killed.
func (k *keeper) read(t *testing.T, lines *bufio.Scanner) {
	t.Helper()
	for lines.Scan() {
		var what string
		var a, b int
		n, _ := fmt.Sscan(lines.Text(), &what, &a, &b)
		switch {
		case what == "put" && n == 2:
			k.records[a], k.next = true, a+1
		case what == "take" && n == 2:
			k.records[a] = false
		case what == "change" && n == 2:
			k.routes[a] = -1
		case what == "route" && n == 3:
			k.routes[a] = b
		case n > 0:
			t.Fatalf("the writer says %q", lines.Text())
		}
	}
}

// check opens the files as the next start does.
func (k *keeper) check(t *testing.T, dir string, numbers int) {
	t.Helper()
	q, err := records.Open(dir, killedLimit)
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	vcrs, _ := q.Take(killedLimit)
	there := make(map[int]bool)
	last := -1
	for _, v := range vcrs {
		i := int(v.Start.Unix())
		if i <= last || v.Called != killedNumber(i) || v.Stop.Sub(v.Start) != time.Minute || v.Caller != own {
			t.Fatalf("record %+v after %d", v, last)
		}
		there[i], last = true, i
	}
	for i, must := range k.records {
		if must && !there[i] {
			t.Errorf("record %d was acknowledged and is lost", i)
		}
	}
	// What was under way when it was killed may be there or not.
	maps.DeleteFunc(k.records, func(i int, _ bool) bool { return !there[i] })
	for i := range there {
		k.records[i] = true
	}
	k.next = max(k.next, last+1)

	r, err := routes.Open(dir, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	have := make(map[learn.Number]routes.Route)
	for _, x := range r.List() {
		have[x.Number] = x
	}
	for n, change := range k.routes {
		x, ok := have[killedNumber(n)]
		switch {
		case change < 0:
		case change/numbers%3 == 2:
			if ok {
				t.Errorf("route %d was taken away and is there", n)
			}
		case !ok || x.URIs[0] != fmt.Sprintf("sip:h%d.example", change):
			t.Errorf("route %d of change %d was acknowledged: %v %+v", n, change, ok, x)
		}
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		switch f.Name() {
		case "vcrs.jsonl", "routes.json", "routes.journal":
		default:
			t.Errorf("%s is left", f.Name())
		}
	}
}

// A call agent that is killed at any moment loses no record and no route that it acknowledged, and leaves no half-written file.
func TestKilledAtAnyMoment(t *testing.T) {
	const numbers = 20
	var tickets []string
	for i := range numbers {
		tickets = append(tickets, testTicket(t, string(killedNumber(i))))
	}
	dir := filepath.Join(t.TempDir(), "state")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	k := &keeper{records: make(map[int]bool), routes: make(map[int]int)}
	rnd := rand.New(rand.NewPCG(1, 2))
	for round := range 30 {
		c := exec.Command(os.Args[0], "-test.run=^$")
		c.Env = append(os.Environ(), writerDir+"="+dir, fmt.Sprintf("%s_FROM=%d", writerDir, k.next), writerDir+"_TICKETS="+strings.Join(tickets, " "))
		c.Stderr = os.Stderr
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		killed := time.AfterFunc(30*time.Millisecond+time.Duration(rnd.IntN(150_000))*time.Microsecond, func() { _ = c.Process.Kill() })
		k.read(t, lines)
		err = c.Wait()
		killed.Stop()
		if err == nil || !strings.Contains(err.Error(), "killed") {
			t.Fatalf("round %d: the writer ended: %v", round, err)
		}
		k.check(t, dir, numbers)
	}
	if k.next < 300 {
		t.Errorf("%d records were written", k.next)
	}
}
