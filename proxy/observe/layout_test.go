package observe

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("%s (-want +got):\n%s", path, d)
	}
}

func TestLayouts(t *testing.T) {
	for name, v := range layouts() {
		t.Run(name, func(t *testing.T) {
			golden(t, name+".txt", []byte(v.Text()))
			doc, err := JSON(v)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, name+".json", doc)
		})
	}
}

// Readers of the documents hold fast to these keys: the printed labels in lower snake case.
func TestJSONKeys(t *testing.T) {
	for _, c := range []struct {
		view View
		path []any // keys and indexes
		want any
	}{
		{sampleStatistics(), []any{"ticket_not_found"}, 1.0},
		{sampleStatistics(), []any{"ticket_decode_failed"}, 2.0},
		{sampleStatistics(), []any{"ticket_epoch_mismatch"}, 3.0},
		{sampleStatistics(), []any{"ticket_integrity_check_failed"}, 4.0},
		{sampleStatistics(), []any{"ticket_timestamp_invalid"}, 5.0},
		{sampleStatistics(), []any{"ticket_did_mismatch"}, 6.0},
		{sampleStatistics(), []any{"ticket_domain_check_failed"}, 0.0},
		{sampleStatistics(), []any{"route_domain_name_check_failed"}, 8.0},
		{sampleStatistics(), []any{"bad_content_length"}, 11.0},
		{sampleStatistics(), []any{"keepalives"}, 20.0},
		{sampleStatistics(), []any{"verification_keepalives"}, 12.0},
		{sampleStatistics(), []any{"sessions_refused"}, 13.0},
		{sampleStatistics(), []any{"handshake_failed_expired"}, 15.0},
		{sampleSignaling(), []any{"in_use"}, 2.0},
		{sampleSignaling(), []any{"most_used"}, 3.0},
		{sampleSignaling(), []any{"sessions", 0, "inside"}, "192.168.10.30:39608"},
		{sampleSignaling(), []any{"sessions", 0, "dialogs", 0, "call_id"}, "ab6d7980@192.168.10.30"},
		{sampleSignaling(), []any{"sessions", 0, "dialogs", 0, "fb_sensitivity"}, 3.0},
		{sampleSignaling(), []any{"sessions", 0, "dialogs", 0, "media", 0, "codec_name"}, "G722"},
		{sampleSignaling(), []any{"sessions", 0, "dialogs", 0, "media", 0, "local_media_conn"}, "209.165.202.130/29824 to 209.165.200.228/21558"},
		{MediaSessionsDetail{sampleMedia()}, []any{"sessions", 0, "outside", "tx_pkts"}, 20203.0},
		{MediaSessionsDetail{sampleMedia()}, []any{"sessions", 0, "rtp_monitoring", "sum_all_packets"}, 20196.0},
		{TLSProxySessions{MaximumSessions: 7}, []any{"maximum_sessions"}, 7.0},
		{sampleCertificates(), []any{"certificates", 1, "status"}, "Expired"},
	} {
		doc, err := JSON(c.view)
		if err != nil {
			t.Fatal(err)
		}
		var at any
		if err := json.Unmarshal(doc, &at); err != nil {
			t.Fatal(err)
		}
		for _, p := range c.path {
			switch k := p.(type) {
			case string:
				m, _ := at.(map[string]any)
				at = m[k]
			case int:
				l, _ := at.([]any)
				if k >= len(l) {
					t.Fatalf("%v: list of %d", c.path, len(l))
				}
				at = l[k]
			}
		}
		if at != c.want {
			t.Errorf("%v is %v, want %v", c.path, at, c.want)
		}
	}
}

// Every label of the statistics gives its key, no key stands twice, and the ticket counters come first and in the order of the check.
func TestStatisticsLabelsAndKeys(t *testing.T) {
	doc, err := JSON(sampleStatistics())
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	d := json.NewDecoder(bytes.NewReader(doc))
	for {
		tok, err := d.Token()
		if err != nil {
			break
		}
		if s, ok := tok.(string); ok {
			keys = append(keys, s)
		}
	}
	var labels []string
	for line := range strings.Lines(sampleStatistics().Text()) {
		label, _, _ := strings.Cut(line, ":")
		labels = append(labels, Snake(label))
	}
	if d := cmp.Diff(labels, keys); d != "" {
		t.Errorf("labels and keys (-labels +keys):\n%s", d)
	}
	seen := map[string]bool{}
	for i, k := range keys {
		if seen[k] {
			t.Errorf("key %s stands twice", k)
		}
		seen[k] = true
		if i < len(TicketLabels) && k != Snake(TicketLabels[i]) {
			t.Errorf("key %d is %s, want that of %q", i, k, TicketLabels[i])
		}
	}
}

// A peer chooses many of these texts; none may move the cursor, add a line or break the document.
func TestHostileText(t *testing.T) {
	for name, v := range layouts() {
		bad, good := poisoned(v, evil), poisoned(v, "harmless")
		if name != "running_config" && name != "running_config_empty" && name != "startup_config" { // its text is the daemon's own
			if got, want := strings.Count(bad.Text(), "\n"), strings.Count(good.Text(), "\n"); got != want {
				t.Errorf("%s: %d lines with the hostile text, %d with a harmless one", name, got, want)
			}
			checkClean(t, name, bad.Text())
		}
		doc, err := JSON(bad)
		if err != nil {
			t.Fatal(err)
		}
		if !json.Valid(doc) {
			t.Errorf("%s: document is not valid", name)
		}
		checkClean(t, name+" json", string(doc))
	}
}

func poisoned(v View, text string) View {
	p := reflect.New(reflect.TypeOf(v)).Elem()
	p.Set(reflect.ValueOf(v))
	poison(p, text)
	return p.Interface().(View)
}

func checkClean(t *testing.T, name, text string) {
	t.Helper()
	for _, r := range text {
		if r == utf8.RuneError || r != '\n' && unicode.IsControl(r) || unicode.Is(unicode.Cf, r) {
			t.Errorf("%s: holds %U", name, r)
			return
		}
	}
}

// poison puts a text into every string below v, and copies what it changes.
func poison(v reflect.Value, text string) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Struct:
		for i := range v.NumField() {
			if f := v.Field(i); f.CanSet() {
				poison(f, text)
			}
		}
	case reflect.Slice:
		c := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
		reflect.Copy(c, v)
		v.Set(c)
		for i := range v.Len() {
			poison(v.Index(i), text)
		}
	case reflect.Map:
		m := reflect.MakeMap(v.Type())
		m.SetMapIndex(reflect.ValueOf(text), reflect.ValueOf(uint64(1)))
		v.Set(m)
	}
}

func TestSnakeAndLabel(t *testing.T) {
	for label, snake := range map[string]string{
		"Ticket DID mismatch": "ticket_did_mismatch", "Call-ID": "call_id", "FB Sensitivity": "fb_sensitivity", "Codec-name": "codec_name", "": "",
	} {
		if got := Snake(label); got != snake {
			t.Errorf("Snake(%q) is %q, want %q", label, got, snake)
		}
	}
	if got := Label("max_forwards_zero"); got != "Max forwards zero" {
		t.Errorf("Label gives %q", got)
	}
}

func TestSeconds(t *testing.T) {
	for _, c := range []struct {
		d          time.Duration
		text, json string
	}{
		{-1, "never", "-1"},
		{-5 * time.Second, "never", "-1"},
		{0, "0:00:00", "0"},
		{1999 * time.Millisecond, "0:00:01", "1"},
		{59 * time.Second, "0:00:59", "59"},
		{3661 * time.Second, "1:01:01", "3661"},
		{86399 * time.Second, "23:59:59", "86399"},
		{86400 * time.Second, "1d00h", "86400"},
		{1e6 * time.Second, "11d13h", "1000000"},
	} {
		s := SecondsOf(c.d)
		doc, err := json.Marshal(s)
		if err != nil || s.String() != c.text || string(doc) != c.json {
			t.Errorf("%v is %s and %s, %v; want %s and %s", c.d, s, doc, err, c.text, c.json)
		}
		var back Seconds
		if err := json.Unmarshal(doc, &back); err != nil || back.String() != c.text {
			t.Errorf("%s reads back as %s, %v", doc, back, err)
		}
	}
	if err := new(Seconds).UnmarshalJSON([]byte(`"x"`)); err == nil {
		t.Error("text was read as seconds")
	}
}
