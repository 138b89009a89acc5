package testbed

import (
	"fmt"
	"os"
	"testing"
)

func TestMain(m *testing.M) {
	if err := Enter(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// The lab proves itself before it judges others: phones, call agents and
// media work with nothing but routers between.
func TestLabWithoutEdges(t *testing.T) {
	lab := Start(t, Options{A: Side{Edge: EdgeRouter}, B: Side{Edge: EdgeRouter}})
	setup := lab.A.Phone.Call(t, lab.B.Phone)
	t.Log(setup)
	lab.A.Phone.Hangup(t)
	lab.B.Phone.WaitEvent(t, "CALL_CLOSED", 5e9)
}
