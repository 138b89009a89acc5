package observe

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// The operator's page names every field of a call record.
func TestOperationNamesEveryRecordField(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "operation.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []any{CallRecord{}, MediaRecord{}, QualityRecord{}} {
		for f := range reflect.TypeOf(v).Fields() {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if !strings.Contains(string(text), "`"+name+"`") {
				t.Errorf("docs/operation.md does not name the field %s of %T", name, v)
			}
		}
	}
}
