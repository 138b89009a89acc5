package keyword

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func sample() *Tree[string] {
	t := &Tree[string]{}
	t.Define("COLOUR", Kind{Label: "COLOUR", Suggest: func() []string { return []string{"red", "rose"} }})
	t.Describe("ticket", "Ticket settings")
	t.AddNo("ticket epoch <epoch:1-255> password <password:WORD>", "Set the ticket password", "ticket", "no ticket")
	t.Add("no ticket", "Remove the ticket password", "no ticket")
	t.Add("ticket reject-action {drop|reject}", "What a bad ticket gets", "reject")
	t.Add("tls-proxy maximum-sessions <n:1-65535>", "Session limit", "max")
	t.Add("tls-proxy <name:WORD8>", "A TLS proxy", "proxy")
	t.Add("description <text:LINE>", "A description", "description")
	t.Add("mode {non-secure=nonsecure|secure}", "Trunk", "mode")
	t.Add("permit {any|any4|host <src:A.B.C.D>|<net:A.B.C.D> <mask:A.B.C.D>} [eq <port:1-65535>|range <lo:1-65535> <hi:1-65535>] [log]", "Entry", "permit")
	t.Add("inspect sip [<map:WORD>] uc-ime <u:WORD> tls-proxy <t:WORD>", "Inspect", "inspect")
	t.Add("paint <colour:COLOUR>", "Paint", "paint")
	return t
}

func flat(a Args) string {
	var b []string
	for _, x := range a {
		if x.Keyword {
			b = append(b, x.Text)
		} else {
			b = append(b, x.Name+"="+x.Text)
		}
	}
	return strings.Join(b, " ")
}

func TestMatch(t *testing.T) {
	for _, c := range []struct{ line, value, args string }{
		{"ticket epoch 1 password abc", "ticket", "ticket epoch epoch=1 password password=abc"},
		{"  ti e 255 p abc", "ticket", "ticket epoch epoch=255 password password=abc"},
		{"TICKET Epoch 7 PASSWORD Abc", "ticket", "ticket epoch epoch=7 password password=Abc"},
		{"no ticket", "no ticket", "no ticket"},
		{"no tick ep 1 pass x", "no ticket", "no ticket epoch epoch=1 password password=x"},
		{"tls-proxy maximum-sessions 5", "max", "tls-proxy maximum-sessions n=5"},
		{"tls-proxy max 5", "max", "tls-proxy maximum-sessions n=5"},
		{"tls-proxy max", "proxy", "tls-proxy name=max"}, // the rest decides: there is no number, so it is a name
		{"description  two  blanks\tkept  ", "description", "description text=two  blanks\tkept"},
		{"mode nonsecure", "mode", "mode non-secure"},
		{"mode nons", "mode", "mode non-secure"},
		{"mode non-s", "mode", "mode non-secure"},
		{"permit any", "permit", "permit any"},
		{"permit any4 log", "permit", "permit any4 log"},
		{"permit host 10.0.0.1 eq 5", "permit", "permit host src=10.0.0.1 eq port=5"},
		{"permit 10.0.0.0 255.0.0.0 range 1 2 log", "permit", "permit net=10.0.0.0 mask=255.0.0.0 range lo=1 hi=2 log"},
		{"inspect sip uc-ime a tls-proxy b", "inspect", "inspect sip uc-ime u=a tls-proxy t=b"},
		{"inspect sip m uc-ime a tls-proxy b", "inspect", "inspect sip map=m uc-ime u=a tls-proxy t=b"},
		{"inspect sip uc uc-ime a tls-proxy b", "inspect", "inspect sip map=uc uc-ime u=a tls-proxy t=b"},
	} {
		v, args, err := sample().MatchLine(c.line)
		if err != nil {
			t.Errorf("%q: %v", c.line, err)
			continue
		}
		if v != c.value || flat(args) != c.args {
			t.Errorf("%q: got %s, %s; want %s, %s", c.line, v, flat(args), c.value, c.args)
		}
	}
}

func TestMatchErrors(t *testing.T) {
	for _, c := range []struct {
		line string
		kind ErrorKind
		col  int
		text string
	}{
		{"", Incomplete, 1, "incomplete command: expected "},
		{"foo", Unknown, 1, `unknown keyword "foo": expected description, inspect, mode`},
		{"t", Ambiguous, 1, `ambiguous keyword "t": ticket or tls-proxy`},
		{"ticket e 256 password x", Invalid, 10, `invalid value "256": the allowed range is 1-255`},
		{"ticket e x password x", Invalid, 10, `invalid value "x": a whole number from 1 to 255 is expected`},
		{"ticket e +1 password x", Invalid, 10, `invalid value "+1": a whole number from 1 to 255 is expected`},
		{"ticket epoch 1", Incomplete, 15, "incomplete command: expected password"},
		{"ticket epoch 1 password x  y", Unknown, 28, `unexpected word "y" after the end of the command`},
		{"tls-proxy 123456789", Invalid, 11, "at most 8 characters are allowed, this has 9"},
		{"permit 192.168.30", Invalid, 8, "an IPv4 address of four numbers is expected"},
		{"permit foo", Unknown, 8, `unknown keyword "foo": expected any, any4, host or A.B.C.D`},
		{"permit host", Incomplete, 12, "expected A.B.C.D"},
		{"permit an", Ambiguous, 8, "any or any4"},
		{"permit any eq", Incomplete, 14, "expected <1-65535>"},
		{"mode", Incomplete, 5, "expected non-secure or secure"},
		{"“x”", Unknown, 1, "unknown keyword"},
		{"mode “x” y", Unknown, 6, "unknown keyword"},
		{"description", Incomplete, 12, "expected LINE"},
	} {
		v, _, err := sample().MatchLine(c.line)
		if err == nil {
			t.Errorf("%q: matched %s", c.line, v)
			continue
		}
		if err.Kind != c.kind || err.Col != c.col || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%q: got kind %d, column %d, %v; want %d, %d, %s", c.line, err.Kind, err.Col, err, c.kind, c.col, c.text)
		}
	}
}

func TestHelpAndComplete(t *testing.T) {
	for _, c := range []struct{ line, help, completed string }{
		{"", "description inspect mode no paint permit ticket tls-proxy", ""},
		{"ti", "ticket", "ticket "},
		{"ticket ", "epoch reject-action", "ticket "},
		{"ticket epoch ", "<1-255>", "ticket epoch "},
		{"t", "ticket tls-proxy", "t"},
		{"p", "paint permit", "p"},
		{"no ticket ", "epoch <cr>", "no ticket epoch"},
		{"tls-proxy ", "maximum-sessions WORD", "tls-proxy maximum-sessions"},
		{"permit an", "any any4", "permit any"},
		{"permit any eq 5 ", "log <cr>", "permit any eq 5 log"},
		{"mode n", "non-secure", "mode non-secure "},
		{"paint r", "red rose COLOUR", "paint r"},
		{"paint re", "red COLOUR", "paint red"},
		{"nonsense ", "", "nonsense "},
		{"description some ", "LINE <cr>", "description some "},
	} {
		var got []string
		for _, x := range sample().Help(c.line) {
			got = append(got, x.Text)
		}
		if d := cmp.Diff(c.help, strings.Join(got, " ")); d != "" {
			t.Errorf("help %q: %s", c.line, d)
		}
		if done, _ := sample().Complete(c.line); done != c.completed {
			t.Errorf("complete %q: got %q, want %q", c.line, done, c.completed)
		}
	}
	if h := sample().Help("ti"); h[0].Help != "Ticket settings" {
		t.Errorf("help of ticket: %q", h[0].Help)
	}
	if h := sample().Help("tls-proxy max"); h[0].Help != "Session limit" {
		t.Errorf("help of maximum-sessions: %q", h[0].Help)
	}
}

func TestArgs(t *testing.T) {
	_, args, err := sample().MatchLine("permit host 10.0.0.1 eq 5")
	if err != nil {
		t.Fatal(err)
	}
	if !args.Has("host") || args.Has("log") || args.Int("port") != 5 || args.Text("src") != "10.0.0.1" || args.Int("src") != 0 {
		t.Errorf("args: %+v", args)
	}
	if a, ok := args.At("eq"); !ok || a.Col != 22 {
		t.Errorf("eq at %+v", a)
	}
}

func TestAddRefusesMalformedPatterns(t *testing.T) {
	for _, p := range []string{"", "a [b", "a b]", "a {b|}", "a <x", "a <x:NOKIND>", "a <9-1>", "a {b]", "<WORD0>"} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%q was accepted", p)
				}
			}()
			(&Tree[int]{}).Add(p, "", 0)
		}()
	}
}

func FuzzMatch(f *testing.F) {
	for _, s := range []string{"ticket epoch 1 password x", "permit 10.0.0.0 255.0.0.0 range 1 2", "description “x”  y", "t", " \t "} {
		f.Add(s)
	}
	tree := sample()
	f.Fuzz(func(t *testing.T, line string) {
		_, args, err := tree.MatchLine(line)
		if err != nil {
			if err.Col < 1 || err.Index > len(Split(line)) {
				t.Fatalf("%q: error out of the line: %+v", line, err)
			}
			return
		}
		// A line written with whole keywords means the same.
		var again []string
		for _, a := range args {
			again = append(again, a.Text)
		}
		_, args2, err := tree.MatchLine(strings.Join(again, " "))
		if err != nil || flat(args) != flat(args2) {
			t.Fatalf("%q: %s, then %s (%v)", line, flat(args), flat(args2), err)
		}
		done, _ := tree.Complete(line)
		if !strings.HasPrefix(strings.ToLower(done), strings.ToLower(line)) && !strings.Contains(line, "nons") {
			if done == "" {
				t.Fatalf("%q completed to nothing", line)
			}
		}
	})
}
