package routes

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"imeproxy/ucime/learn"
	"imeproxy/ucime/ticket"
)

// Maximum is the number of routes that a table holds.
const Maximum = 100000

const (
	maximumURIs = 8
	lifetime    = 365 * 24 * time.Hour // guide table 20
)

// Route is a learned route and whether it may be used.
type Route struct {
	learn.Route
	Enabled bool `json:"enabled"`
}

// Table holds the routes.
type Table struct {
	file string
	now  func() time.Time

	mu      sync.RWMutex
	routes  map[learn.Number]Route
	refused uint64 // for want of room
}

// Open reads the table of a state directory; there need be none yet.
func Open(dir string, now func() time.Time) (*Table, error) {
	t := &Table{file: filepath.Join(dir, "routes.json"), now: now, routes: make(map[learn.Number]Route)}
	text, err := os.ReadFile(t.file)
	if errors.Is(err, fs.ErrNotExist) {
		return t, nil
	}
	var all []Route
	if err == nil {
		err = json.Unmarshal(text, &all)
	}
	if err != nil {
		return nil, fmt.Errorf("learned routes: %s: %w", t.file, err)
	}
	for _, r := range all[:min(len(all), Maximum)] {
		t.routes[r.Number] = r
	}
	return t, nil
}

// Lookup is the route of a number that may be used now.
func (t *Table) Lookup(n learn.Number) (learn.Route, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	r, ok := t.routes[n]
	if !ok || !r.Enabled || !t.now().Before(r.Expires) {
		return learn.Route{}, false
	}
	return r.Route, true
}

// List is every route, by number.
func (t *Table) List() []Route {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return slices.SortedFunc(maps.Values(t.routes), func(a, b Route) int { return strings.Compare(string(a.Number), string(b.Number)) })
}

// Counts are the routes, the domains that they lead to, and the routes refused for want of room.
func (t *Table) Counts() (routes, domains int, refused uint64) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	seen := make(map[string]bool)
	for _, r := range t.routes {
		seen[r.Domain] = true
	}
	return len(t.routes), len(seen), t.refused
}

// ErrFull says that the table holds Maximum routes.
var ErrFull = fmt.Errorf("the table holds %d routes, which is its limit", Maximum)

// Learn adds a route or replaces the one of its number, whose being disabled it keeps. A zero Learned is now, a zero Expires a year later.
func (t *Table) Learn(r learn.Route) error {
	if r.Learned.IsZero() {
		r.Learned = t.now().UTC().Truncate(time.Second)
	}
	if r.Expires.IsZero() {
		r.Expires = r.Learned.Add(lifetime)
	}
	r.Domain = strings.ToLower(r.Domain)
	if err := check(r); err != nil {
		return err
	}
	return t.change(func() error {
		old, known := t.routes[r.Number]
		if !known && len(t.routes) >= Maximum {
			t.refused++
			return ErrFull
		}
		t.routes[r.Number] = Route{r, !known || old.Enabled}
		return nil
	})
}

func check(r learn.Route) error {
	if !r.Number.Valid() {
		return fmt.Errorf("%q is no +E.164 number", r.Number)
	}
	if r.Domain == "" || len(r.Domain) > 253 {
		return fmt.Errorf("%q is no domain", r.Domain)
	}
	if len(r.URIs) == 0 || len(r.URIs) > maximumURIs {
		return fmt.Errorf("a route has 1 to %d URIs", maximumURIs)
	}
	for _, u := range r.URIs {
		if _, _, err := Target(u); err != nil {
			return err
		}
	}
	k, err := ticket.Decode(r.Ticket)
	if err != nil {
		return fmt.Errorf("ticket: %w", err)
	}
	if !slices.Contains(k.Numbers, string(r.Number)) {
		return fmt.Errorf("the ticket is not for %s", r.Number)
	}
	if !strings.EqualFold(k.GrantingDomain, r.Domain) {
		return fmt.Errorf("the ticket is of %s, not of %s", k.GrantingDomain, r.Domain)
	}
	return nil
}

// Target is the host and the port of a URI `sip:HOST[:PORT]`; the port is 5060 where there is none.
func Target(uri string) (host string, port uint16, err error) {
	rest, ok := strings.CutPrefix(uri, "sip:")
	rest, _, _ = strings.Cut(rest, ";")
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		rest = rest[i+1:]
	}
	host, text, split := rest, "5060", error(nil)
	if strings.Contains(rest, ":") {
		host, text, split = net.SplitHostPort(rest)
	}
	n, bad := strconv.ParseUint(text, 10, 16)
	if !ok || split != nil || bad != nil || n == 0 || host == "" || len(host) > 253 || strings.ContainsAny(host, " <>\"\r\n\t/:") {
		return "", 0, fmt.Errorf("%q: want sip:HOST[:PORT]", uri)
	}
	return host, uint16(n), nil
}

// ErrUnknown says that there is no route of a number.
var ErrUnknown = errors.New("there is no route to that number")

// Enable lets a route be used, or not.
func (t *Table) Enable(n learn.Number, enabled bool) error {
	return t.update(n, func(r *Route) { r.Enabled = enabled })
}

// Expire ends a route now.
func (t *Table) Expire(n learn.Number) error {
	return t.update(n, func(r *Route) { r.Expires = t.now().UTC() })
}

// Forget removes a route.
func (t *Table) Forget(n learn.Number) error {
	return t.change(func() error {
		if _, ok := t.routes[n]; !ok {
			return ErrUnknown
		}
		delete(t.routes, n)
		return nil
	})
}

func (t *Table) update(n learn.Number, f func(*Route)) error {
	return t.change(func() error {
		r, ok := t.routes[n]
		if !ok {
			return ErrUnknown
		}
		f(&r)
		t.routes[n] = r
		return nil
	})
}

// change makes a change and saves it; what cannot be saved is not done.
func (t *Table) change(f func() error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	before := maps.Clone(t.routes)
	if err := f(); err != nil {
		return err
	}
	if err := t.save(); err != nil {
		t.routes = before
		return fmt.Errorf("learned routes: %w", err)
	}
	return nil
}

func (t *Table) save() error {
	all := slices.SortedFunc(maps.Values(t.routes), func(a, b Route) int { return strings.Compare(string(a.Number), string(b.Number)) })
	text, err := json.MarshalIndent(all, "", " ")
	if err != nil {
		return err
	}
	return Replace(t.file, append(text, '\n'))
}

// Replace writes a file whole or not at all; it is readable for its owner alone.
func Replace(file string, text []byte) error {
	f, err := os.CreateTemp(filepath.Dir(file), filepath.Base(file)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}
