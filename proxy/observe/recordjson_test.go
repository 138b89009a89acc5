package observe

import (
	"encoding/json"
	"math"
	"reflect"
	"testing"
	"time"
)

// fill gives every field below v, those behind pointers and in slices included, a value; text is one of its strings.
func fill(v reflect.Value, n *int64, text string) {
	*n++
	switch {
	case v.Type() == reflect.TypeFor[time.Time]():
		v.Set(reflect.ValueOf(noon.Add(time.Duration(*n) * 1234567 * time.Nanosecond)))
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), n, text)
		}
	case v.Kind() == reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), n, text)
	case v.Kind() == reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(v.Index(0), n, text)
		fill(v.Index(1), n, text)
	case v.Kind() == reflect.String:
		v.SetString(text + string(rune('a'+*n%26)))
	case v.Kind() == reflect.Bool:
		v.SetBool(true)
	case v.CanInt():
		v.SetInt(*n)
	case v.CanUint():
		v.SetUint(uint64(*n))
	case v.CanFloat():
		v.SetFloat(float64(*n) / 8)
	}
}

func compareWithMarshal(t *testing.T, r CallRecord) {
	t.Helper()
	want, err1 := json.Marshal(r)
	got, err2 := r.appendJSON([]byte("x"))
	if (err1 == nil) != (err2 == nil) || err1 == nil && string(got) != "x"+string(want) {
		t.Errorf("%s, %v\nwhere json.Marshal gives\nx%s, %v", got, err2, want, err1)
	}
}

// A field that is added to a record and not to appendJSON fails here.
func TestRecordJSONIsThatOfMarshal(t *testing.T) {
	compareWithMarshal(t, CallRecord{})
	compareWithMarshal(t, CallRecord{Media: []MediaRecord{{}}})
	for _, text := range []string{"", "sip:+49 30;x=1", `q"\<&>`, "\x00\n\x7f", "ä\u2028\u202e", "\xff\xfe"} {
		var r CallRecord
		var n int64
		fill(reflect.ValueOf(&r).Elem(), &n, text)
		compareWithMarshal(t, r)
	}
	fields := reflect.TypeFor[CallRecord]()
	for i := range fields.NumField() { // each alone
		var r CallRecord
		var n int64
		fill(reflect.ValueOf(&r).Elem().Field(i), &n, "")
		compareWithMarshal(t, r)
	}
	fields = reflect.TypeFor[MediaRecord]()
	for i := range fields.NumField() {
		r := CallRecord{Media: make([]MediaRecord, 1)}
		var n int64
		fill(reflect.ValueOf(&r.Media[0]).Elem().Field(i), &n, "")
		compareWithMarshal(t, r)
	}
}

func TestRecordJSONRefusesWhatMarshalRefuses(t *testing.T) {
	nan := math.NaN()
	compareWithMarshal(t, CallRecord{Media: []MediaRecord{{JitterInsideMS: &nan}}})
	compareWithMarshal(t, CallRecord{End: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)})
	compareWithMarshal(t, CallRecord{Setup: noon.In(time.FixedZone("far", 3*3600+1800)), Connect: time.Now()})
}

func FuzzRecordJSON(f *testing.F) {
	f.Add("a@b", "+1", "bye", int64(5), uint64(7))
	f.Add("\"<&>\\", "\xff\u2029", "\x1b", int64(math.MinInt64), uint64(math.MaxUint64))
	f.Fuzz(func(t *testing.T, id, from, codec string, ms int64, sent uint64) {
		compareWithMarshal(t, CallRecord{CallID: id, From: from, DurationMS: ms, PacketsSent: sent, Setup: noon.Add(time.Duration(ms)), Media: []MediaRecord{{Codec: codec, LostInside: &sent}}})
	})
}
