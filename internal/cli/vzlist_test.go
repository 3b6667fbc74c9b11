package cli

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/vzkit/vzkit/lifecycle"
)

// listing runs vzlist on a host with these configs, by their containers' ids.
func listing(t *testing.T, configs map[string]string, args ...string) string {
	t.Helper()
	dir := t.TempDir()
	h := &lifecycle.Host{Etc: filepath.Join(dir, "etc"), Lib: filepath.Join(dir, "lib"), Run: filepath.Join(dir, "run")}
	if err := os.MkdirAll(filepath.Join(h.Etc, "conf"), 0o755); err != nil {
		t.Fatal(err)
	}
	for id, config := range configs {
		if err := os.WriteFile(filepath.Join(h.Etc, "conf", id+".conf"), []byte(config), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var out, said bytes.Buffer
	v := &vzlist{program: program{name: "vzlist", stdout: &out, stderr: &said, code: listCode}, host: h}
	if code := v.run(t.Context(), v.root(), args); code != 0 || said.Len() > 0 {
		t.Fatalf("%q: exit code %d, %s", args, code, said.String())
	}
	return out.String()
}

var spacious = map[string]string{
	"101": "DISKSPACE=1G:2G\n", // of no meaning here
	"102": "VE_LAYOUT=ploop\nDISKSPACE=\"1G:2G\"\n",
	"103": "VE_LAYOUT=image\n",
	"104": "VE_LAYOUT=simfs\n",
}

func TestVzlistDiskSpace(t *testing.T) {
	got := listing(t, spacious, "-a", "-o", "ctid,layout,diskspace,diskspace.s,diskspace.h")
	want := []string{
		"CTID LAYOUT DSPACE DSPACE.S DSPACE.H", "101 dir - - -", "102 image - 2097152 2097152",
		"103 image - 10485760 10485760", "104 dir - - -", "",
	}
	for i, line := range strings.Split(got, "\n") {
		if i >= len(want) || strings.Join(strings.Fields(line), " ") != want[i] {
			t.Errorf("line %d is %q, want of %q", i, line, want)
		}
	}
}

func TestVzlistDiskSpaceJSON(t *testing.T) {
	var got []struct {
		CTID      int
		Layout    string
		DiskSpace any
	}
	if err := json.Unmarshal([]byte(listing(t, spacious, "-aj")), &got); err != nil || len(got) != 4 {
		t.Fatalf("%v, %v", got, err)
	}
	if got[0].Layout != "dir" || got[0].DiskSpace != nil {
		t.Errorf("a directory is %+v", got[0])
	}
	want := map[string]any{"usage": nil, "softlimit": 2097152.0, "hardlimit": 2097152.0}
	if got[1].Layout != "image" || !reflect.DeepEqual(got[1].DiskSpace, want) {
		t.Errorf("an image is %+v, want %v", got[1], want)
	}
}
