package main

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

func TestModulesForDevices(t *testing.T) {
	file := filepath.Join(t.TempDir(), "modules.json")
	text := `[{"name":"virtio"},{"name":"virtio_net","depends":["virtio"],"aliases":["virtio:d00000001v*"]},
		{"name":"vmxnet3","aliases":["pci:v000015ADd000007B0sv*sd*bc*sc*i*"]},{"name":"nf_tables","always":true}]`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	m, err := readModules(file)
	if err != nil {
		t.Fatal(err)
	}
	for device, want := range map[string][]string{
		"virtio:d00000001v00001AF4":                             {"virtio_net"},
		"pci:v000015ADd000007B0sv000015ADsd000007B0bc02sc00i00": {"vmxnet3"},
		"virtio:d00000002v00001AF4":                             nil,
	} {
		if got := m.forAlias(device); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v, wanted %v", device, got, want)
		}
	}
	if _, err := readModules(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a missing list was taken")
	}
}

func TestLogIsBounded(t *testing.T) {
	l := openLog(filepath.Join(t.TempDir(), "system.log"))
	defer l.close()
	line := string(make([]byte, 60000))
	for range (logKept + 3) * logSize / 60000 {
		l.line("test", line)
	}
	files, err := filepath.Glob(l.name + "*")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != logKept+1 {
		t.Errorf("%d files, %d at most: %v", len(files), logKept+1, files)
	}
	for _, f := range files {
		if st, err := os.Stat(f); err != nil || st.Size() > logSize+maxLine {
			t.Errorf("%s: %d bytes, %v", f, st.Size(), err)
		}
	}
}
