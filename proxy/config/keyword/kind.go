package keyword

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Kind says what an argument may be.
type Kind struct {
	// Label is what `?` shows, such as A.B.C.D or <1-255>.
	Label string
	// Check refuses a word; the error's text says what would be right. Nil accepts every word.
	Check func(word string) error
	// Rest makes the argument take the rest of the line.
	Rest bool
	// Suggest names values that exist, for `?` and Tab. It may be nil, and is called without a lock.
	Suggest func() []string
}

// Define adds a kind under a name, for use in patterns that are added later. It panics when the name is taken.
func (t *Tree[T]) Define(name string, k Kind) {
	if _, taken := t.kinds[name]; taken {
		panic(fmt.Sprintf("keyword: kind %q is defined twice", name))
	}
	if k.Label == "" {
		k.Label = name
	}
	if t.kinds == nil {
		t.kinds = map[string]Kind{}
	}
	t.kinds[name] = k
}

// Check says what is wrong with a word for a kind, or nil. An unknown kind panics, as in Add.
func (t *Tree[T]) Check(kind, word string) error {
	k, err := t.kind(kind)
	if err != nil {
		panic("keyword: " + err.Error())
	}
	if k.Check == nil {
		return nil
	}
	return k.Check(word)
}

// kind finds a defined or a built-in kind.
func (t *Tree[T]) kind(name string) (Kind, error) {
	if k, ok := t.kinds[name]; ok {
		return k, nil
	}
	switch {
	case name == "LINE":
		return Kind{Label: "LINE", Rest: true}, nil
	case name == "A.B.C.D":
		return Kind{Label: "A.B.C.D", Check: checkIPv4}, nil
	case name == "WORD":
		return Kind{Label: "WORD"}, nil
	case strings.HasPrefix(name, "WORD"):
		n, err := strconv.Atoi(name[len("WORD"):])
		if err != nil || n < 1 {
			return Kind{}, fmt.Errorf("kind %q: no length", name)
		}
		return Kind{Label: "WORD", Check: func(w string) error {
			if got := utf8.RuneCountInString(w); got > n {
				return fmt.Errorf("at most %d characters are allowed, this has %d", n, got)
			}
			return nil
		}}, nil
	}
	low, high, found := strings.Cut(name, "-")
	lo, err1 := strconv.Atoi(low)
	hi, err2 := strconv.Atoi(high)
	if !found || err1 != nil || err2 != nil || lo > hi {
		return Kind{}, fmt.Errorf("kind %q is not known", name)
	}
	return Kind{Label: "<" + name + ">", Check: func(w string) error { return checkRange(w, lo, hi) }}, nil
}

func checkIPv4(w string) error {
	if a, err := netip.ParseAddr(w); err != nil || !a.Is4() {
		return fmt.Errorf("an IPv4 address of four numbers is expected, such as 192.168.10.30")
	}
	return nil
}

func checkRange(w string, lo, hi int) error {
	n, err := strconv.Atoi(w)
	if err != nil || !digits(w) {
		return fmt.Errorf("a whole number from %d to %d is expected", lo, hi)
	}
	if n < lo || n > hi {
		return fmt.Errorf("the allowed range is %d-%d", lo, hi)
	}
	return nil
}

func digits(w string) bool {
	for _, r := range w {
		if r < '0' || r > '9' {
			return false
		}
	}
	return w != ""
}
