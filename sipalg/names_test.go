package sipalg

import (
	"slices"
	"strings"
	"testing"
)

func TestHeadersAreFoundByAnySpelling(t *testing.T) {
	names := slices.Concat(singleHeaders, strings.Fields(listHeaders))
	for _, r := range addressRules {
		names = append(names, r.name)
	}
	for _, list := range headerClasses {
		names = append(names, strings.Fields(list)...)
	}
	for _, name := range names {
		for _, spelt := range []string{name, strings.ToLower(name), strings.ToUpper(name)} {
			h := headerOf(spelt)
			if h.name == "" || !strings.EqualFold(h.name, name) {
				t.Fatalf("%q finds %q", spelt, h.name)
			}
			if (h.single != 0) != slices.Contains(singleHeaders, name) || h.list != slices.Contains(strings.Fields(listHeaders), name) {
				t.Errorf("%q: single %x, list %v", spelt, h.single, h.list)
			}
			if want := slices.ContainsFunc(addressRules, func(r addressRule) bool { return r.name == name }); (h.address != nil) != want {
				t.Errorf("%q has an address rule: %v", spelt, h.address != nil)
			}
			if want := slices.IndexFunc(headerClasses[:], func(list string) bool { return slices.Contains(strings.Fields(list), name) }); int(h.class) != max(want, 0) {
				t.Errorf("%q has class %d, want %d", spelt, h.class, max(want, 0))
			}
		}
	}
	for letter, full := range compactNames {
		if full != "" && headerOf(string(rune(letter))) != headerOf(full) {
			t.Errorf("%c is not %s", letter, full)
		}
	}
	for _, name := range []string{"", "z", "X-Other", "Viaa", "Vi", "Call_ID", strings.Repeat("Via", 100), "V\u0130a"} {
		if h := headerOf(name); h.name != "" || h.single != 0 || h.class != classText || h.address != nil || h.list {
			t.Errorf("%q is taken for %q", name, h.name)
		}
	}
}

func TestTextsStayAsTheyWere(t *testing.T) {
	var x texts
	var made []string
	for i := range 200 { // some of them longer than the memory that is left, some than all of it
		made = append(made, x.join(strings.Repeat("a", i), "-", strings.Repeat("b", 2*i)))
	}
	for i, s := range made {
		if s != strings.Repeat("a", i)+"-"+strings.Repeat("b", 2*i) {
			t.Errorf("text %d became %q", i, s)
		}
	}
}
