package lifecycle_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/lifecycle"
	"github.com/vzkit/vzkit/lifecycle/config"
)

func TestParseAddress(t *testing.T) {
	for text, want := range map[string]string{
		"10.0.0.2": "10.0.0.2", "10.0.0.2/24": "10.0.0.2", "10.0.0.2/32": "10.0.0.2",
		"2001:db8::1": "2001:db8::1", "2001:DB8:0::1/64": "2001:db8::1", "fd00::2": "fd00::2",
		"::ffff:10.0.0.2": "10.0.0.2",
	} {
		if got, err := lifecycle.ParseAddress(text); err != nil || got.String() != want {
			t.Errorf("%q is %v, %v, want %s", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", "10.0.0", "10.0.0.256", "10.0.0.2/33", "10.0.0.2/", "010.0.0.2", " 10.0.0.2", "example.org", "10.0.0.2:80",
		"0.0.0.0", "::", "::ffff:0.0.0.0", "127.0.0.1", "::1", "::ffff:127.0.0.1", "224.0.0.1", "ff02::1",
		"255.255.255.255", "fe80::1", "fe80::1%eth0", "169.254.0.1",
	} {
		_, err := lifecycle.ParseAddress(text)
		wantFault(t, text, err, fault.BadValue, "is not a container's IP address")
	}
}

func TestParseCTID(t *testing.T) {
	for text, want := range map[string]uint32{"101": 101, "2147483644": lifecycle.MaxCTID} {
		if got, err := lifecycle.ParseCTID(text); got != want || err != nil {
			t.Errorf("%q is %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "0", "1", "100", "2147483645", "4294967397", "-101", "+101", "1e3", "0x65", " 101", "101 ", "web"} {
		_, err := lifecycle.ParseCTID(text)
		wantFault(t, text, err, fault.BadValue, "is not in 101..2147483644")
	}
}

func TestPaths(t *testing.T) {
	h := newHost(t)
	c := bare(t, h, 101, "")
	for got, want := range map[string]string{
		c.Private(): filepath.Join(h.Lib, "private", "101"), c.Root(): filepath.Join(h.Lib, "root", "101"),
		c.Hostname(): "ct101", c.Name(): "", c.Template(): "",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	put(t, filepath.Join(h.Etc, "vz.conf"), "VE_PRIVATE=/vz/private/$VEID\nVE_ROOT=\"/vz/${VEID}/root\"\n")
	if got := c.Private() + " " + c.Root(); got != "/vz/private/101 /vz/101/root" {
		t.Errorf("by vz.conf: %s", got)
	}
	c = bare(t, h, 102, "VE_PRIVATE=/own/$VEID\nVE_ROOT=\nHOSTNAME=db\nNAME=x\nOSTEMPLATE=minimal\n")
	if got := c.Private() + " " + c.Root(); got != "/own/102 /vz/102/root" {
		t.Errorf("by its own config: %s", got)
	}
	if got := c.Hostname() + " " + c.Name() + " " + c.Template(); got != "db x minimal" {
		t.Errorf("names: %s", got)
	}
}

func TestWithRefusals(t *testing.T) {
	h := newHost(t)
	for _, c := range []struct {
		key, value string
		kind       fault.Kind
		want       string
	}{
		{"IP_ADDRESS", "10.0.0.2 nonsense", fault.BadValue, `"nonsense" is not`},
		{"IP_ADDRESS", "10.0.0.2 10.0.0.2", fault.BadValue, "10.0.0.2"},
		{"IP_ADDRESS", "10.0.0.2 ::ffff:10.0.0.2/128", fault.BadValue, "10.0.0.2"},
		{"VE_PRIVATE", "relative/$VEID", fault.Config, "relative/101"},
		{"VE_PRIVATE", "/", fault.Config, `"/"`},
		{"VE_PRIVATE", "/vz/../etc", fault.Config, "/vz/../etc"},
		{"VE_PRIVATE", "/vz//101", fault.Config, "/vz//101"},
		{"VE_ROOT", "/vz/101/", fault.Config, "/vz/101/"},
		{"LOCAL_UID", "0", fault.BadValue, "LOCAL_UID"},
		{"LOCAL_UID", "65535", fault.BadValue, "LOCAL_UID"},
		{"LOCAL_GID", "4294967295", fault.BadValue, "LOCAL_GID"},
		{"LOCAL_GID", "4294967296", fault.BadValue, "LOCAL_GID"},
		{"LOCAL_GID", "-1", fault.BadValue, "LOCAL_GID"},
		{"LOCAL_GID", "root", fault.BadValue, "LOCAL_GID"},
	} {
		var f config.File
		if err := f.Set(c.key, c.value); err != nil {
			t.Fatal(err)
		}
		_, err := h.With(101, &f)
		wantFault(t, c.key+"="+c.value, err, c.kind, c.want)
	}
	if got := files(t, h); len(got) != 1 { // vz.conf
		t.Errorf("left: %q", got)
	}
}

func TestFind(t *testing.T) {
	h := newHost(t)
	bare(t, h, 101, "NAME=web\n")
	bare(t, h, 102, "NAME=db\n")
	bare(t, h, 1, "")
	for name, want := range map[string]uint32{"101": 101, "web": 101, "db": 102, "1": 1} {
		if c, err := h.Find(name); err != nil || c.ID != want {
			t.Errorf("%q: %+v, %v", name, c, err)
		}
	}
	for name, kind := range map[string]fault.Kind{
		"": fault.BadValue, "0": fault.BadValue, "2147483645": fault.BadValue, "4294967397": fault.BadValue,
		"103": fault.NoContainer, "we": fault.NoContainer, "WEB": fault.NoContainer, "../101": fault.NoContainer,
	} {
		_, err := h.Find(name)
		wantFault(t, name, err, kind, "container")
		if kind == fault.NoContainer && fault.HintOf(err) == "" {
			t.Errorf("%q: no hint", name)
		}
	}
}

func TestList(t *testing.T) {
	h := newHost(t)
	ids := func() (ids []uint32) {
		t.Helper()
		list, err := h.List()
		if err != nil {
			t.Error(err)
		}
		for _, c := range list {
			ids = append(ids, c.ID)
		}
		return ids
	}
	if got := ids(); got != nil {
		t.Errorf("host without config directory has %v", got)
	}
	for _, id := range []uint32{1000, 101, 2147483644} {
		bare(t, h, id, "")
	}
	for _, name := range []string{
		"vz.conf", "101.conf~", "101.conf.destroyed", "102.conf.migrated", ".101.conf", "0101.conf", "+102.conf", "100.conf",
		"ve-basic.conf-sample", "102", "102.CONF", "web.conf", "sub/103.conf",
	} {
		put(t, filepath.Join(h.Etc, "conf", name), "NAME=foreign\n")
	}
	if diff := cmp.Diff([]uint32{101, 1000, 2147483644}, ids()); diff != "" {
		t.Error(diff)
	}
}

// One container that cannot be read must not hide the others.
func TestListWithBrokenConfig(t *testing.T) {
	h := newHost(t)
	bare(t, h, 101, "NAME=web\n")
	put(t, h.ConfPath(102), `NAME="`)
	put(t, h.ConfPath(103), "LOCAL_UID=0\n")
	if err := os.Mkdir(h.ConfPath(104), 0o755); err != nil {
		t.Fatal(err)
	}
	list, err := h.List()
	if len(list) != 1 || list[0].ID != 101 {
		t.Errorf("listed %d containers", len(list))
	}
	for _, id := range []string{"102", "103", "104"} {
		if err == nil || !strings.Contains(err.Error(), "container "+id) {
			t.Errorf("error does not name container %s: %v", id, err)
		}
	}
	if c, err := h.Find("web"); err != nil || c.ID != 101 {
		t.Errorf("find the good one: %v, %v", c, err)
	}
}

func TestHostID(t *testing.T) {
	h, other := newHost(t), newHost(t)
	first, err := h.HostID()
	if err != nil || len(first) != 36 {
		t.Fatalf("host id %q, %v", first, err)
	}
	if again, err := hostAt(filepath.Dir(h.Lib)).HostID(); again != first || err != nil {
		t.Errorf("host id went from %q to %q, %v", first, again, err)
	}
	if id, err := other.HostID(); id == first || err != nil {
		t.Errorf("two hosts have id %q, %v", id, err)
	}
	if left, err := os.ReadDir(h.Lib); err != nil || len(left) != 1 {
		t.Errorf("left: %v, %v", left, err)
	}
	put(t, h.Lib+"/file", "")
	if _, err := (&lifecycle.Host{Lib: h.Lib + "/file"}).HostID(); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("host id below a file: %v", err)
	}
}
