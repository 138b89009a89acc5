package routes

import (
	"errors"
	"fmt"
	"maps"
	"net"
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
	Enabled bool   `json:"enabled"`
	Source  string `json:"source,omitempty"` // the peer server that told of it, "" for an administrator
}

// Table holds the routes.
type Table struct {
	now     func() time.Time
	writing sync.Mutex // one change at a time, its way to the disk included
	disk    journal    // guarded by writing

	mu      sync.RWMutex           // never held across a write to the disk
	routes  map[learn.Number]Route // changed with both locks held, so that one of them is enough to read it
	refused uint64                 // for want of room
}

// Open reads the table of a state directory; there need be none yet.
func Open(dir string, now func() time.Time) (*Table, error) {
	t := &Table{now: now, routes: make(map[learn.Number]Route)}
	var err error
	if t.disk, err = openJournal(dir, t.routes); err != nil {
		return nil, fmt.Errorf("learned routes: %w", err)
	}
	return t, nil
}

// Close ends the use of the table; its files stay.
func (t *Table) Close() error {
	t.writing.Lock()
	defer t.writing.Unlock()
	return t.disk.log.Close()
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
func (t *Table) Learn(r learn.Route) error { return t.Apply("", []learn.Route{r}, nil) }

// Apply learns routes from a peer server, and removes those of other numbers: those that this server has told of, and those of servers that
// are not among known. All of it is on the disk when it returns nil, and nothing counts when it does not.
func (t *Table) Apply(source string, routes []learn.Route, withdrawn []learn.Number, known ...string) error {
	routes = slices.Clone(routes)
	for i := range routes {
		var err error
		if routes[i], err = t.Complete(routes[i]); err != nil {
			return err
		}
	}
	return t.change(func() ([]entry, error) {
		var out []entry
		fresh := 0
		for _, r := range routes {
			old, there := t.routes[r.Number]
			if !there {
				fresh++
			}
			out = append(out, entry{r.Number, &Route{r, !there || old.Enabled, source}})
		}
		if fresh > 0 && len(t.routes)+fresh > Maximum {
			t.mu.Lock()
			t.refused += uint64(fresh)
			t.mu.Unlock()
			return nil, ErrFull
		}
		for _, n := range withdrawn {
			if r, there := t.routes[n]; there && (r.Source == source || r.Source != "" && !slices.Contains(known, r.Source)) {
				out = append(out, entry{n, nil})
			}
		}
		return out, nil
	})
}

// Complete checks a route and fills what it leaves out.
func (t *Table) Complete(r learn.Route) (learn.Route, error) {
	if r.Learned.IsZero() {
		r.Learned = t.now().UTC().Truncate(time.Second)
	}
	if r.Expires.IsZero() {
		r.Expires = r.Learned.Add(lifetime)
	}
	r.Domain = strings.ToLower(r.Domain)
	return r, check(r)
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

// Target is where a request for a URI `sip:[USER@]HOST[:PORT]` goes: its host, or what its maddr parameter says (RFC 3261 section 19.1.1);
// the port is 5060 where there is none.
func Target(uri string) (host string, port uint16, err error) {
	rest, ok := strings.CutPrefix(uri, "sip:")
	rest, params, _ := strings.Cut(rest, ";")
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		rest = rest[i+1:]
	}
	host, text, split := rest, "5060", error(nil)
	if strings.Contains(rest, ":") {
		host, text, split = net.SplitHostPort(rest)
	}
	n, bad := strconv.ParseUint(text, 10, 16)
	for p := range strings.SplitSeq(params, ";") {
		if name, value, _ := strings.Cut(p, "="); strings.EqualFold(name, "maddr") {
			host = value
		}
	}
	if !ok || split != nil || bad != nil || n == 0 || host == "" || len(host) > 253 || strings.ContainsAny(host, " <>\"\r\n\t/:") {
		return "", 0, fmt.Errorf("%q: want sip:[USER@]HOST[:PORT][;maddr=HOST]", uri)
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
	return t.change(func() ([]entry, error) {
		if _, ok := t.routes[n]; !ok {
			return nil, ErrUnknown
		}
		return []entry{{n, nil}}, nil
	})
}

func (t *Table) update(n learn.Number, f func(*Route)) error {
	return t.change(func() ([]entry, error) {
		r, ok := t.routes[n]
		if !ok {
			return nil, ErrUnknown
		}
		f(&r)
		return []entry{{n, &r}}, nil
	})
}

// change plans a change and makes it; what cannot be saved is not done.
func (t *Table) change(plan func() ([]entry, error)) error {
	t.writing.Lock()
	defer t.writing.Unlock()
	entries, err := plan()
	if err != nil || len(entries) == 0 {
		return err
	}
	if err := t.disk.add(entries, t.routes); err != nil {
		return fmt.Errorf("learned routes: %w", err)
	}
	t.mu.Lock()
	for _, e := range entries {
		e.apply(t.routes)
	}
	t.mu.Unlock()
	return nil
}
