package config

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// sharing finds what two values have in common that could be changed in one through the other.
func sharing(a, b reflect.Value, path string, tell func(string)) {
	if a.Type().PkgPath() == "net/netip" { // never changed in place
		return
	}
	switch a.Kind() {
	case reflect.Pointer, reflect.Map, reflect.Slice:
		if a.IsNil() || b.IsNil() {
			return
		}
		if a.Pointer() == b.Pointer() && (a.Kind() != reflect.Slice || a.Cap() > 0) {
			tell(path)
			return
		}
	}
	switch a.Kind() {
	case reflect.Pointer:
		sharing(a.Elem(), b.Elem(), path, tell)
	case reflect.Slice, reflect.Array:
		for i := range min(a.Len(), b.Len()) {
			sharing(a.Index(i), b.Index(i), fmt.Sprintf("%s[%d]", path, i), tell)
		}
	case reflect.Struct:
		for i := range a.NumField() {
			sharing(a.Field(i), b.Field(i), path+"."+a.Type().Field(i).Name, tell)
		}
	case reflect.Interface, reflect.Func, reflect.Chan:
		tell(path + " of a kind that this test does not know")
	}
}

// full has something in every field that can hold something.
func full(v reflect.Value, depth int) {
	if v.Type().PkgPath() == "net/netip" || !v.CanSet() || depth > 8 {
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		full(v.Elem(), depth+1)
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(reflect.ValueOf("x"), reflect.Zero(v.Type().Elem()))
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 4))
		for i := range 2 {
			full(v.Index(i), depth+1)
		}
	case reflect.String:
		v.SetString("x")
	case reflect.Struct:
		for i := range v.NumField() {
			full(v.Field(i), depth+1)
		}
	}
}

// Nothing of a copy can be changed through the original, whatever fields a configuration gets.
func TestCloneSharesNothing(t *testing.T) {
	c := new(Config)
	full(reflect.ValueOf(c).Elem(), 0)
	c.source = []string{"x"}
	n := c.clone()
	sharing(reflect.ValueOf(c).Elem(), reflect.ValueOf(n).Elem(), "Config", func(path string) { t.Errorf("%s is shared", path) })
	if d := cmp.Diff(c, n, meaning); d != "" {
		t.Errorf("the copy is another (-original +copy):\n%s", d)
	}
}

// meaning compares what configurations say, not where they came from.
var meaning = cmp.Options{noPlaces, cmpopts.IgnoreUnexported(Config{})}

// said are diagnostics without what depends on lines that were typed before: their numbers, order and blanks.
func said(found Diagnostics) (out []string) {
	for _, d := range found {
		out = append(out, digits.ReplaceAllString(d.Message+" "+d.Hint, "N"))
	}
	slices.Sort(out)
	return out
}

// whole makes a change as it was made before: the text is printed, and read again with the lines behind it.
func whole(c *Config, lines []string) (*Config, Diagnostics) {
	text := strings.TrimSuffix(c.Startup(), "\n") + "\nend"
	next, found := Parse("terminal", []byte(text+"\n"+strings.Join(lines, "\n")))
	return next, behind(found, strings.Count(text, "\n")+1)
}

// same compares a change that is made on a copy with the one that is read anew.
func same(t *testing.T, c *Config, lines []string) *Config {
	t.Helper()
	want, mistakes := whole(c, lines)
	got, refused, _ := c.Append(lines)
	if len(mistakes) > 0 {
		if d := cmp.Diff(said(mistakes), said(refused)); d != "" {
			t.Errorf("%q is refused otherwise (-anew +on a copy):\n%s", lines, d)
		}
		return nil
	}
	if got == nil {
		if len(want.Check().Errors()) == 0 {
			t.Errorf("%q is refused: %v", lines, refused)
		}
		return nil
	}
	if d := cmp.Diff(want.Startup(), got.Startup()); d != "" {
		t.Errorf("%q gives another text (-anew +on a copy):\n%s", lines, d)
	}
	if d := cmp.Diff(said(want.Check()), said(got.Check())); d != "" {
		t.Errorf("%q is checked otherwise (-anew +on a copy):\n%s", lines, d)
	}
	if d := cmp.Diff(want, got, meaning); d != "" {
		t.Errorf("%q gives another configuration (-anew +on a copy):\n%s", lines, d)
	}
	return got
}

// Every example of the reference, typed one after the other on configurations that work, gives what reading the whole text anew gives.
func TestTypedOnACopyIsAsReadAnew(t *testing.T) {
	var scripts [][]string
	parts := strings.Split(read(t, reference), "```")
	for i := 1; i < len(parts); i += 2 {
		if kind, body, _ := strings.Cut(parts[i], "\n"); strings.HasPrefix(kind, "asa") {
			scripts = append(scripts, strings.Split(body, "\n"))
		}
	}
	if len(scripts) < 10 {
		t.Fatal("the reference has too few examples")
	}
	empty, _ := Parse("", nil)
	for _, base := range []*Config{empty, working(t)} {
		for _, script := range scripts {
			c := base
			var e Edit
			for _, line := range script {
				typed, mistakes := e.Line(c, line)
				if len(mistakes) > 0 || typed.Body || saltedLine.MatchString(line) {
					continue
				}
				for _, lines := range typed.Changes {
					if next := same(t, c, lines); next != nil {
						c = next
					}
				}
				if t.Failed() {
					return
				}
			}
		}
	}
}

// saltedLine are those whose passwords become another hash each time.
var saltedLine = regexp.MustCompile(`(?im)^\s*"?(en|u)[a-z]* .*p[a-z]* `)

var digits = regexp.MustCompile(`[0-9]+`)
