package vap

import (
	"strings"
	"time"

	"imeproxy/ucime/learn"
)

// Limits of the documents with records.
const (
	MaxVCRs      = 100 // an UploadVCR
	MaxRoutes    = 8   // a Notify
	MaxWithdrawn = 64  // a Withdraw
	maxCall      = 7 * 24 * time.Hour
	maxTicket    = 4096
)

// Notification is what a server tells a call agent of one of its services: routes that were learned, or numbers whose routes are withdrawn;
// never both.
type Notification struct {
	Service   ServiceID
	ID        uint64 // rises for each user's service, is not 0 and never used again
	Routes    []learn.Route
	Withdrawn []learn.Number
	Reason    string // of the withdrawal, for people
}

// Check reports the first thing that keeps n from being sent. A handler that stores notifications should check them before.
func (n *Notification) Check() error {
	if n.ID == 0 || n.Service == (ServiceID{}) {
		return bad("notification without ID or service")
	}
	if len(n.Routes) > MaxRoutes || len(n.Withdrawn) > MaxWithdrawn || (len(n.Routes) == 0) == (len(n.Withdrawn) == 0) {
		return fail(CodeTooLarge, "%d routes and %d withdrawn numbers: want 1 to %d or 1 to %d", len(n.Routes), len(n.Withdrawn), MaxRoutes, MaxWithdrawn)
	}
	for _, r := range n.Routes {
		if err := checkRoute(r); err != nil {
			return err
		}
	}
	for _, w := range n.Withdrawn {
		if !w.Valid() {
			return bad("number %.32q: want + and 1 to 15 digits", w)
		}
	}
	if len(n.Reason) > 255 || !printable(n.Reason) {
		return bad("reason: want at most 255 characters without control characters")
	}
	if size := len(n.document()); size > maxData {
		return fail(CodeTooLarge, "notification of %d bytes is over %d", size, maxData)
	}
	return nil
}

func checkRoute(r learn.Route) error {
	switch {
	case !r.Number.Valid():
		return bad("number %.32q: want + and 1 to 15 digits", r.Number)
	case !goodDomain(r.Domain):
		return bad("domain %.64q is no domain name in lower case", r.Domain)
	case len(r.URIs) < 1 || len(r.URIs) > MaxURIs:
		return bad("%d URIs, want 1 to %d", len(r.URIs), MaxURIs)
	case len(r.Ticket) < 1 || len(r.Ticket) > maxTicket || !graphic(r.Ticket):
		return bad("ticket: want 1 to %d printable characters", maxTicket)
	}
	for _, u := range r.URIs {
		if !goodURI(u) {
			return bad("URI %.64q: want sip: or sips:, at most %d printable characters", u, maxURILen)
		}
	}
	return nil
}

func (n *Notification) method() Method {
	if len(n.Withdrawn) > 0 {
		return Withdraw
	}
	return Notify
}

func (n *Notification) document() []byte {
	var w writer
	if n.method() == Withdraw {
		w.open("withdraw")
		for _, number := range n.Withdrawn {
			w.leaf("number", string(number))
		}
		if n.Reason != "" {
			w.leaf("reason", n.Reason)
		}
		w.close("withdraw")
		return w.b.Bytes()
	}
	w.open("routes")
	for _, r := range n.Routes {
		w.open("route")
		w.leaf("number", string(r.Number))
		w.leaf("domain", r.Domain)
		for _, u := range r.URIs {
			w.leaf("uri", u)
		}
		w.leaf("ticket", r.Ticket)
		w.leaf("peer", r.Peer.String())
		w.leaf("learned", stamp(r.Learned))
		w.leaf("expires", stamp(r.Expires))
		w.close("route")
	}
	w.close("routes")
	return w.b.Bytes()
}

// readNotification fills what the document of a Notify or Withdraw says.
func readNotification(m Method, n *Notification, data []byte) error {
	if m == Withdraw {
		return n.readWithdraw(data)
	}
	doc, err := readDocument(data, "routes")
	if err != nil {
		return err
	}
	for _, c := range doc.all("route") {
		if len(n.Routes) == MaxRoutes {
			return fail(CodeTooLarge, "at most %d routes", MaxRoutes)
		}
		r, err := readRoute(c)
		if err != nil {
			return err
		}
		n.Routes = append(n.Routes, r)
	}
	return n.Check()
}

func (n *Notification) readWithdraw(data []byte) error {
	doc, err := readDocument(data, "withdraw")
	if err != nil {
		return err
	}
	list, err := doc.texts("number", MaxWithdrawn)
	if err != nil {
		return err
	}
	for _, number := range list {
		n.Withdrawn = append(n.Withdrawn, learn.Number(number))
	}
	if n.Reason, err = doc.one("reason", true); err != nil {
		return err
	}
	return n.Check()
}

func readRoute(c *node) (r learn.Route, err error) {
	var number, peer, learned, expires string
	for _, f := range []struct {
		name string
		into *string
	}{{"number", &number}, {"domain", &r.Domain}, {"ticket", &r.Ticket}, {"peer", &peer}, {"learned", &learned}, {"expires", &expires}} {
		if *f.into, err = c.one(f.name, false); err != nil {
			return r, err
		}
	}
	r.Number, r.Domain = learn.Number(number), strings.ToLower(r.Domain)
	if r.URIs, err = c.texts("uri", MaxURIs); err != nil {
		return r, err
	}
	if r.Peer, err = learn.ParsePeerID(peer); err != nil {
		return r, bad("peer: %v", err)
	}
	if r.Learned, err = readStamp(learned); err != nil {
		return r, err
	}
	r.Expires, err = readStamp(expires)
	return r, err
}

// CheckVCR reports what keeps a record from being uploaded.
func CheckVCR(v learn.VCR) error {
	switch {
	case v.Role != learn.Originating && v.Role != learn.Terminating:
		return bad("role %d: want originating or terminating", v.Role)
	case !v.Called.Valid():
		return bad("called %.32q: want + and 1 to 15 digits", v.Called)
	case v.Caller != "" && !v.Caller.Valid():
		return bad("caller %.32q: want + and 1 to 15 digits, or nothing", v.Caller)
	case v.Stop.Before(v.Start) || v.Stop.Sub(v.Start) > maxCall:
		return bad("stop %s is before start %s, or more than 7 days after", stamp(v.Stop), stamp(v.Start))
	}
	return nil
}

var roleNames = map[learn.Role]string{learn.Originating: "originating", learn.Terminating: "terminating"}

func vcrDocument(list []learn.VCR) []byte {
	var w writer
	w.open("vcrs")
	for _, v := range list {
		w.open("vcr")
		w.leaf("role", roleNames[v.Role])
		w.leaf("called", string(v.Called))
		if v.Caller != "" {
			w.leaf("caller", string(v.Caller))
		}
		w.leaf("start", stamp(v.Start))
		w.leaf("stop", stamp(v.Stop))
		w.close("vcr")
	}
	w.close("vcrs")
	return w.b.Bytes()
}

func readVCRs(data []byte) ([]learn.VCR, error) {
	doc, err := readDocument(data, "vcrs")
	if err != nil {
		return nil, err
	}
	nodes := doc.all("vcr")
	if len(nodes) == 0 {
		return nil, bad("<vcrs> has no <vcr>")
	}
	if len(nodes) > MaxVCRs {
		return nil, fail(CodeTooLarge, "%d records, at most %d", len(nodes), MaxVCRs)
	}
	var list []learn.VCR
	for _, n := range nodes {
		v, err := readVCR(n)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	return list, nil
}

func readVCR(n *node) (v learn.VCR, err error) {
	var role, called, caller, start, stop string
	for _, f := range []struct {
		name     string
		into     *string
		optional bool
	}{{"role", &role, false}, {"called", &called, false}, {"caller", &caller, true}, {"start", &start, false}, {"stop", &stop, false}} {
		if *f.into, err = n.one(f.name, f.optional); err != nil {
			return v, err
		}
	}
	v.Called, v.Caller = learn.Number(called), learn.Number(caller)
	for r, name := range roleNames {
		if name == role {
			v.Role = r
		}
	}
	if v.Start, err = readStamp(start); err != nil {
		return v, err
	}
	if v.Stop, err = readStamp(stop); err != nil {
		return v, err
	}
	return v, CheckVCR(v)
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

func readStamp(s string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil || s[len(s)-1] != 'Z' {
		return time.Time{}, bad("time %.40q: want RFC 3339 in UTC", s)
	}
	return t.UTC(), nil
}
