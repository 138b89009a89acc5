package ticket_test

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"imeproxy/ucime/ticket"
)

const password = "a-long-ticket-password-01"

// keys are derived once for all tests, as the proxy derives them once.
var keys = struct {
	sync.Mutex
	m map[string]ticket.Key
}{m: map[string]ticket.Key{}}

func key(password string, epoch int) ticket.Key {
	keys.Lock()
	defer keys.Unlock()
	id := fmt.Sprint(epoch, password)
	if _, ok := keys.m[id]; !ok {
		keys.m[id] = ticket.DeriveKey(password, uint8(epoch))
	}
	return keys.m[id]
}

type vector struct {
	Name, Ticket, Expect, Password, Called string
	Epoch                                  int
	Now                                    int64
	OwnDomain                              string   `json:"own_domain"`
	PeerDomains                            []string `json:"peer_domains"`
}

func vectors(t testing.TB) []vector {
	t.Helper()
	text, err := os.ReadFile("testdata/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Vectors []vector }
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Vectors) < 20 {
		t.Fatalf("only %d vectors", len(file.Vectors))
	}
	return file.Vectors
}

func TestVectors(t *testing.T) {
	for _, v := range vectors(t) {
		t.Run(v.Name, func(t *testing.T) {
			ver := ticket.Verifier{Key: key(v.Password, v.Epoch), OwnDomains: []string{v.OwnDomain}}
			got, _ := ver.Verify([]string{v.Ticket}, v.Called, v.PeerDomains, time.Unix(v.Now, 0))
			if string(got) != v.Expect {
				t.Errorf("got %q, want %q", got, v.Expect)
			}
		})
	}
}

// A vector that was made under the test key is issued again from its fields
// and must come out the same to the byte.
func TestIssueReproducesVectors(t *testing.T) {
	same := 0
	for _, v := range vectors(t) {
		tk, err := ticket.Decode(v.Ticket)
		if err != nil || tk.Epoch != uint8(v.Epoch) || v.Expect == string(ticket.IntegrityFailed) {
			continue
		}
		got, err := ticket.Issue(key(v.Password, v.Epoch), ticket.IssueParams{
			GrantingDomain: tk.GrantingDomain, GrantedToDomain: tk.GrantedToDomain,
			Numbers: tk.Numbers, GrantingNode: tk.GrantingNode,
			NotBefore: time.Unix(int64(tk.NotBefore), 0),
			Lifetime:  time.Duration(tk.NotAfter-tk.NotBefore) * time.Second,
			ID:        tk.ID, Salt: tk.Salt, Extensions: tk.Extensions,
		})
		if err != nil {
			t.Errorf("%s: %v", v.Name, err)
			continue
		}
		if got != v.Ticket {
			t.Errorf("%s:\ngot  %s\nwant %s", v.Name, got, v.Ticket)
		}
		same++
	}
	if same < 8 {
		t.Errorf("only %d vectors could be issued again", same)
	}
}

func params() ticket.IssueParams {
	return ticket.IssueParams{
		GrantingDomain: "b.example", GrantedToDomain: "a.example",
		Numbers: []string{"+14085551212"}, NotBefore: time.Unix(1793000000, 0),
	}
}

func issue(t *testing.T, p ticket.IssueParams) string {
	t.Helper()
	s, err := ticket.Issue(key(password, 7), p)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestVerifyHeaders(t *testing.T) {
	good := vectors(t)[0].Ticket // holds both "+" and "/"
	ver := ticket.Verifier{Key: key(password, 7), OwnDomains: []string{"x.example", "B.Example"}}
	for _, tc := range []struct {
		name    string
		headers []string
		want    ticket.Result
	}{
		{"none", nil, ticket.NotFound},
		{"one", []string{good}, ticket.OK},
		{"twice the same", []string{good, good}, ticket.DecodeFailed},
		{"empty", []string{""}, ticket.DecodeFailed},
		{"4097 characters", []string{strings.Repeat("A", 4097)}, ticket.DecodeFailed},
		{"line end inside", []string{good[:8] + "\r\n" + good[8:]}, ticket.DecodeFailed},
		{"blank after", []string{good + " "}, ticket.DecodeFailed},
		{"two in one header", []string{good + "," + good}, ticket.DecodeFailed},
		{"URL alphabet", []string{strings.NewReplacer("+", "-", "/", "_").Replace(good)}, ticket.DecodeFailed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got, _ := ver.Verify(tc.headers, "+14085551212", []string{"a.example"}, time.Unix(1793000000, 0)); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestCalledNumber(t *testing.T) {
	p := params()
	p.Numbers = []string{"+14085551212", "+4930123"}
	good := issue(t, p)
	ver := ticket.Verifier{Key: key(password, 7), OwnDomains: []string{"b.example"}}
	for called, want := range map[string]ticket.Result{
		"+14085551212":                 ticket.OK,
		"+1(408)555-1212":              ticket.OK,
		"+1.408.555.1212":              ticket.OK,
		"+1 408 555 1212":              ticket.OK,
		"%2B14085551212":               ticket.OK,
		"%2b1%20408%20555%201212":      ticket.OK,
		"+14085551212;phone-context=x": ticket.OK,
		"+4930123":                     ticket.OK,
		"+14085551212;npdi;rn=+1900":   ticket.DIDMismatch,
		"+14085551212;%54GRP=pstn":     ticket.DIDMismatch,
		"+14085551212;cic=+1288":       ticket.DIDMismatch,
		"+14085551212;x=%":             ticket.OK,
		"+14085551212;%=x":             ticket.DIDMismatch,
		"14085551212":                  ticket.DIDMismatch,
		"+1408555121":                  ticket.DIDMismatch,
		"+140855512120":                ticket.DIDMismatch,
		"+14085551212,1":               ticket.DIDMismatch,
		"+14085551212%3b1":             ticket.DIDMismatch,
		"+14085551212%":                ticket.DIDMismatch,
		"+14085551212\x00":             ticket.DIDMismatch,
		"":                             ticket.DIDMismatch,
		"alice":                        ticket.DIDMismatch,
	} {
		if got, _ := ver.Verify([]string{good}, called, []string{"a.example"}, time.Unix(1793000000, 0)); got != want {
			t.Errorf("called %q: got %q, want %q", called, got, want)
		}
	}
}

// The checks stand in a fixed order: a ticket with every fault left grows the
// counter of the first, and each fault that is mended shows the next.
func TestOrderOfChecks(t *testing.T) {
	p := params()
	ver := ticket.Verifier{Key: key(password, 8), OwnDomains: []string{"other.example"}}
	forged, err := ticket.Issue(key("another-password", 7), p)
	if err != nil {
		t.Fatal(err)
	}
	called, peers, now := "+1999", []string{"*.example"}, time.Unix(0, 0)
	headers := []string{forged, forged}
	step := func(want ticket.Result) {
		t.Helper()
		if got, _ := ver.Verify(headers, called, peers, now); got != want {
			t.Fatalf("got %q, want %q", got, want)
		}
	}
	step(ticket.DecodeFailed)
	headers = headers[:1]
	step(ticket.EpochMismatch)
	ver.Key = key(password, 7)
	step(ticket.IntegrityFailed)
	headers = []string{issue(t, p)}
	step(ticket.TimestampInvalid)
	now = p.NotBefore.Add(-ticket.Skew)
	step(ticket.DIDMismatch)
	called = p.Numbers[0]
	step(ticket.DomainFailed)
	peers = append(peers, "A.Example")
	step(ticket.RouteDomainFailed)
	ver.OwnDomains = append(ver.OwnDomains, "b.example")
	step(ticket.OK)
}

func TestTimes(t *testing.T) {
	p := params()
	p.Lifetime = time.Hour
	good := issue(t, p)
	ver := ticket.Verifier{Key: key(password, 7), OwnDomains: []string{"b.example"}}
	start := p.NotBefore
	for _, tc := range []struct {
		now  time.Time
		want ticket.Result
	}{
		{start.Add(-301 * time.Second), ticket.TimestampInvalid},
		{start.Add(-300 * time.Second), ticket.OK},
		{start.Add(time.Hour + 300*time.Second), ticket.OK},
		{start.Add(time.Hour + 301*time.Second), ticket.TimestampInvalid},
		{time.Unix(-1, 0), ticket.TimestampInvalid},
	} {
		if got, _ := ver.Verify([]string{good}, p.Numbers[0], []string{"a.example"}, tc.now); got != tc.want {
			t.Errorf("%v: got %q, want %q", tc.now, got, tc.want)
		}
	}
}

func TestZeroVerifierAcceptsNothing(t *testing.T) {
	var ver ticket.Verifier
	for _, v := range vectors(t) {
		if got, _ := ver.Verify([]string{v.Ticket}, v.Called, v.PeerDomains, time.Unix(v.Now, 0)); got == ticket.OK {
			t.Errorf("%s: ok without a key", v.Name)
		}
	}
}

func TestIssueRefuses(t *testing.T) {
	many := make([]string, 65)
	for i := range many {
		many[i] = fmt.Sprintf("+1%05d", i)
	}
	for _, tc := range []struct {
		name string
		edit func(*ticket.IssueParams)
		want string
	}{
		{"no number", func(p *ticket.IssueParams) { p.Numbers = nil }, "1 to 64"},
		{"65 numbers", func(p *ticket.IssueParams) { p.Numbers = many }, "1 to 64"},
		{"no plus", func(p *ticket.IssueParams) { p.Numbers = []string{"14085551212"} }, `"14085551212"`},
		{"one digit", func(p *ticket.IssueParams) { p.Numbers = []string{"+1"} }, "2 to 15"},
		{"16 digits", func(p *ticket.IssueParams) { p.Numbers = []string{"+1234567890123456"} }, "2 to 15"},
		{"twice", func(p *ticket.IssueParams) { p.Numbers = []string{"+14", "+1-4"} }, "twice"},
		{"no domain", func(p *ticket.IssueParams) { p.GrantingDomain = "" }, "granting domain"},
		{"long domain", func(p *ticket.IssueParams) { p.GrantedToDomain = strings.Repeat("a.", 127) + "a" }, "granted-to domain"},
		{"U-label", func(p *ticket.IssueParams) { p.GrantedToDomain = "bücher.example" }, "granted-to domain"},
		{"wildcard", func(p *ticket.IssueParams) { p.GrantedToDomain = "*.example" }, "granted-to domain"},
		{"empty label", func(p *ticket.IssueParams) { p.GrantedToDomain = "a..example" }, "labels"},
		{"long label", func(p *ticket.IssueParams) { p.GrantedToDomain = strings.Repeat("a", 64) + ".example" }, "labels"},
		{"negative lifetime", func(p *ticket.IssueParams) { p.Lifetime = -time.Hour }, "lifetime"},
		{"low extension", func(p *ticket.IssueParams) { p.Extensions = []ticket.Extension{{Type: 0xff}} }, "extension"},
		{"large extension", func(p *ticket.IssueParams) {
			p.Extensions = []ticket.Extension{{Type: 0x100, Value: make([]byte, 3000)}}
		}, "4096"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := params()
			tc.edit(&p)
			_, err := ticket.Issue(key(password, 7), p)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want an error with %q", err, tc.want)
			}
		})
	}
	if _, err := ticket.Issue(ticket.Key{}, params()); err == nil {
		t.Error("issued under the zero key")
	}
}

func TestIssueDrawsAndFolds(t *testing.T) {
	p := params()
	p.GrantingDomain, p.GrantedToDomain = "B.Example.", "XN--BCHER-KVA.example"
	p.Numbers = []string{"+1 (408) 555-1212", "+49.30.123"}
	first, second := issue(t, p), issue(t, p)
	a, err := ticket.Decode(first)
	if err != nil {
		t.Fatal(err)
	}
	b, err := ticket.Decode(second)
	if err != nil {
		t.Fatal(err)
	}
	if a.ID == b.ID || a.Salt == b.Salt {
		t.Error("two tickets share id or salt")
	}
	if a.ID[6]>>4 != 4 || a.ID[8]>>6 != 2 {
		t.Errorf("id %x is no random UUID", a.ID)
	}
	if a.GrantingDomain != "b.example" || a.GrantedToDomain != "xn--bcher-kva.example" {
		t.Errorf("domains %q %q", a.GrantingDomain, a.GrantedToDomain)
	}
	if diff := cmp.Diff([]string{"+14085551212", "+4930123"}, a.Numbers); diff != "" {
		t.Error(diff)
	}
	if a.NotAfter-a.NotBefore != 365*86400 {
		t.Errorf("default lifetime %d s", a.NotAfter-a.NotBefore)
	}
}

func tlv(kind, value string) string {
	return kind + fmt.Sprintf("%04x", len(value)/2) + value
}

// TestParseRefuses takes a good ticket apart and breaks one rule at a time.
func TestParseRefuses(t *testing.T) {
	zero16, text := strings.Repeat("00", 16), func(s string) string { return hex.EncodeToString([]byte(s)) }
	good := []string{
		tlv("0001", "01"), tlv("0002", zero16), tlv("0003", zero16),
		tlv("0004", "000000006adf0240"), tlv("0005", "000000006cc035c0"), tlv("0006", text("+14")),
		tlv("0007", zero16), tlv("0008", text("b.example")), tlv("0009", text("a.example")),
		tlv("000a", "07"), tlv("00ff", strings.Repeat("00", 32)),
	}
	parse := func(parts []string) (*ticket.Ticket, error) {
		raw, err := hex.DecodeString(strings.Join(parts, ""))
		if err != nil {
			t.Fatal(err)
		}
		return ticket.Parse(raw)
	}
	with := func(i int, s string) []string {
		out := append([]string(nil), good...)
		out[i] = s
		return out
	}
	if _, err := parse(good); err != nil {
		t.Fatal(err)
	}
	for i := range good {
		if _, err := parse(with(i, "")); err == nil {
			t.Errorf("accepted without TLV %d", i)
		}
		if _, err := parse(with(i, good[i]+good[i])); err == nil && i != 5 {
			t.Errorf("accepted with TLV %d twice", i)
		}
		if i > 0 {
			swapped := with(i, good[i-1])
			swapped[i-1] = good[i]
			if _, err := parse(swapped); err == nil {
				t.Errorf("accepted with TLVs %d and %d swapped", i-1, i)
			}
		}
	}
	for name, tc := range map[string]struct {
		parts  []string
		offset int
	}{
		"nothing":                       {nil, 0},
		"half a header":                 {[]string{"000100"}, 0},
		"version of two bytes":          {with(0, tlv("0001", "0001")), 2},
		"version 0":                     {with(0, tlv("0001", "00")), 4},
		"id of 15 bytes":                {with(1, tlv("0002", zero16[2:])), 7},
		"length beyond the end":         {with(10, "00ff0020"), 129},
		"number of one digit":           {with(5, tlv("0006", text("+1"))), 73},
		"number of 16 digits":           {with(5, tlv("0006", text("+1234567890123456"))), 73},
		"number with separators":        {with(5, tlv("0006", text("+1-4"))), 73},
		"65 numbers":                    {with(5, strings.Repeat(good[5], 65)), 69 + 64*7},
		"empty domain":                  {with(7, tlv("0008", "")), 100},
		"domain with final dot":         {with(7, tlv("0008", text("b.example."))), 100},
		"domain of 254 bytes":           {with(7, tlv("0008", text(strings.Repeat("a.", 126)+"aa"))), 100},
		"domain not ASCII":              {with(7, tlv("0008", text("bü.example"))), 100},
		"epoch 0":                       {with(9, tlv("000a", "00")), 126},
		"type 0x000b":                   {with(9, good[9]+tlv("000b", "00")), 127},
		"extension after the integrity": {append(append([]string(nil), good...), tlv("0100", "")), 163},
		"extensions out of order":       {with(9, good[9]+tlv("0200", "")+tlv("0100", "")), 131},
		"extension before epoch":        {with(9, tlv("0100", "")+good[9]), 122},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parse(tc.parts)
			var d *ticket.DecodeError
			if !errors.As(err, &d) {
				t.Fatalf("got %v, want a DecodeError", err)
			}
			if d.Offset != tc.offset {
				t.Errorf("%v: want offset %d", err, tc.offset)
			}
		})
	}
}

// A forged time near the ends of uint64 must not wrap into a valid one.
func TestTimesDoNotWrap(t *testing.T) {
	good := issue(t, params())
	raw, err := base64.StdEncoding.DecodeString(good)
	if err != nil {
		t.Fatal(err)
	}
	at := strings.Index(string(raw), "\x00\x04\x00\x08") + 4
	for i := range 8 {
		raw[at+i] = 0xff
	}
	forged, err := ticket.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	if forged.NotBefore != 1<<64-1 {
		t.Fatalf("not before %d", forged.NotBefore)
	}
	if s := forged.String(); !strings.Contains(s, "after the year 9999 (18446744073709551615)") {
		t.Errorf("shown as\n%s", s)
	}
}

func TestKeyIsNeverShown(t *testing.T) {
	k := key(password, 7)
	secret := "c17f24720ffff3dd" // the vectors' epoch key begins so
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "key", k, "in", struct{ K ticket.Key }{k})
	js, err := json.Marshal(k)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{
		fmt.Sprint(k), fmt.Sprintf("%+v %#v %x %s %q %d", k, k, k, k, k, k),
		fmt.Sprintf("%+v %x", ticket.Verifier{Key: k}, ticket.Verifier{Key: k}), log.String(), string(js),
	} {
		if strings.Contains(s, secret) || strings.Contains(s, "193 127 36") || !strings.Contains(s, "*****") {
			t.Errorf("printed %s", s)
		}
	}
}

func TestCheckPassword(t *testing.T) {
	for p, ok := range map[string]bool{
		"0123456789": true, strings.Repeat("~", 64): true, "!w23456789": true,
		"012345678": false, strings.Repeat("a", 65): false, "01234 56789": false,
		"0123456789\x7f": false, "0123456789ü": false, "": false,
	} {
		if err := ticket.CheckPassword(p); (err == nil) != ok {
			t.Errorf("%q: %v", p, err)
		} else if err != nil && p != "" && strings.Contains(err.Error(), p) {
			t.Errorf("error holds the password: %v", err)
		}
	}
}

func TestResultsInOrderOfChecks(t *testing.T) {
	want := []string{
		"Ticket not found", "Ticket decode failed", "Ticket epoch mismatch", "Ticket integrity check failed",
		"Ticket timestamp invalid", "Ticket DID mismatch", "Ticket domain check failed", "Route domain name check failed",
	}
	var got []string
	for _, r := range ticket.Results() {
		got = append(got, r.Label())
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestInspection(t *testing.T) {
	p := params()
	p.ID, p.Salt, p.GrantingNode = [16]byte{1}, [16]byte{2}, [16]byte{3}
	p.Extensions = []ticket.Extension{{Type: 0x0100, Value: []byte("hello")}}
	tk, err := ticket.Decode(issue(t, p))
	if err != nil {
		t.Fatal(err)
	}
	integrity := hex.EncodeToString(tk.Integrity[:])
	want := `Version:           1
Ticket ID:         01000000-0000-0000-0000-000000000000
Salt:              02000000000000000000000000000000
Not before:        2026-10-26T07:33:20Z (1793000000)
Not after:         2027-10-26T07:33:20Z (1824536000)
Number:            +14085551212
Granting node:     03000000000000000000000000000000
Granting domain:   b.example
Granted-to domain: a.example
Epoch:             7
Extension 0x0100:  68656c6c6f
Integrity:         ` + integrity + "\n"
	if diff := cmp.Diff(want, tk.String()); diff != "" {
		t.Error(diff)
	}
	js, err := json.Marshal(tk)
	if err != nil {
		t.Fatal(err)
	}
	wantJSON := `{"version":1,"ticket_id":"01000000-0000-0000-0000-000000000000","salt":"02000000000000000000000000000000",` +
		`"not_before":"2026-10-26T07:33:20Z","not_before_unix":1793000000,"not_after":"2027-10-26T07:33:20Z","not_after_unix":1824536000,` +
		`"numbers":["+14085551212"],"granting_node":"03000000000000000000000000000000","granting_domain":"b.example",` +
		`"granted_to_domain":"a.example","epoch":7,"extensions":[{"type":"0x0100","value":"68656c6c6f"}],"integrity":"` + integrity + `"}`
	if diff := cmp.Diff(wantJSON, string(js)); diff != "" {
		t.Error(diff)
	}
}

func FuzzParse(f *testing.F) {
	for _, v := range vectors(f) {
		if raw, err := base64.StdEncoding.DecodeString(v.Ticket); err == nil {
			f.Add(raw)
		}
	}
	ver := ticket.Verifier{Key: key(password, 7), OwnDomains: []string{"b.example"}}
	f.Fuzz(func(t *testing.T, raw []byte) {
		tk, err := ticket.Parse(raw)
		if err != nil {
			return
		}
		if got := tk.Marshal(); string(got) != string(raw) {
			t.Fatalf("parsed %x, printed %x", raw, got)
		}
		// The same from the fields alone, without the bytes that came.
		fields := ticket.Ticket{
			Version: tk.Version, ID: tk.ID, Salt: tk.Salt, NotBefore: tk.NotBefore, NotAfter: tk.NotAfter,
			Numbers: tk.Numbers, GrantingNode: tk.GrantingNode, GrantingDomain: tk.GrantingDomain,
			GrantedToDomain: tk.GrantedToDomain, Epoch: tk.Epoch, Extensions: tk.Extensions, Integrity: tk.Integrity,
		}
		if got := fields.Marshal(); string(got) != string(raw) {
			t.Fatalf("parsed %x, made %x of its fields", raw, got)
		}
		ver.Verify([]string{base64.StdEncoding.EncodeToString(raw)}, "+14085551212", []string{"a.example"}, time.Unix(1793001000, 0))
	})
}

func BenchmarkVerifyForged(b *testing.B) {
	s, err := ticket.Issue(key("another-password", 7), params())
	if err != nil {
		b.Fatal(err)
	}
	ver := ticket.Verifier{Key: key(password, 7), OwnDomains: []string{"b.example"}}
	for b.Loop() {
		ver.Verify([]string{s}, "+14085551212", []string{"a.example"}, time.Unix(1793001000, 0))
	}
}
