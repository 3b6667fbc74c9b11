package migrate

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/sys/mountinfo"

	"github.com/vzkit/vzkit/internal/criu"
	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/internal/preflight"
	"github.com/vzkit/vzkit/lifecycle"
)

func wantFault(t *testing.T, what string, err error, kind fault.Kind, text string) {
	t.Helper()
	if err == nil || fault.KindOf(err) != kind || !strings.Contains(err.Error(), text) {
		t.Errorf("%s: error %v of kind %d, want kind %d and %q", what, err, fault.KindOf(err), kind, text)
	}
}

func newHost(t *testing.T) *lifecycle.Host {
	t.Helper()
	dir := t.TempDir()
	return &lifecycle.Host{Etc: filepath.Join(dir, "etc"), Lib: filepath.Join(dir, "lib"), Run: filepath.Join(dir, "run")}
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// An offer is refused before it has any effect on the host.
func TestCheck(t *testing.T) {
	h := newHost(t)
	put(t, h.ConfPath(102), "NAME=web\nIP_ADDRESS=10.255.255.2\n")
	put(t, filepath.Join(h.Lib, "private", "103", "file"), "")
	const much = 1 << 59
	for name, c := range map[string]struct {
		offer Offer
		kind  fault.Kind
		want  string
	}{
		"the host itself":        {Offer{CTID: 0}, fault.Protocol, "container id 0 is out of range"},
		"reserved id":            {Offer{CTID: 100}, fault.Protocol, "out of range"},
		"id too great":           {Offer{CTID: lifecycle.MaxCTID + 1}, fault.Protocol, "out of range"},
		"broken config":          {Offer{CTID: 101, Config: `NAME="`}, fault.Config, "closing quote"},
		"config too long":        {Offer{CTID: 101, Config: strings.Repeat("#", 1<<20)}, fault.Config, "over the limit"},
		"ids of the host's root": {Offer{CTID: 101, Config: "LOCAL_UID=0\n"}, fault.BadValue, "LOCAL_UID"},
		"container is there":     {Offer{CTID: 102}, fault.Exists, "container 102 is there already"},
		"private area is there":  {Offer{CTID: 103}, fault.Exists, "container 103 is there already"},
		"name is taken":          {Offer{CTID: 101, Config: "NAME=web\n"}, fault.Exists, "container 102's"},
		"address is taken":       {Offer{CTID: 101, Config: "IP_ADDRESS=10.255.255.2\n"}, fault.AddressUsed, "container 102's"},
		"address of the host":    {Offer{CTID: 101, Config: "IP_ADDRESS=127.0.0.1\n"}, fault.BadValue, "127.0.0.1"},
		"too many bytes":         {Offer{CTID: 101, Disk: much}, fault.NoSpace, "MiB are needed"},
		"bytes that overflow":    {Offer{CTID: 101, Disk: 1<<64 - 1}, fault.NoSpace, ""},
		"inodes that overflow":   {Offer{CTID: 101, Inodes: 1<<64 - 1}, fault.NoSpace, ""},
		"blocks that overflow":   {Offer{CTID: 101, Image: &ImageOffer{Size: 64 << 20, Allocated: 1<<64 - 1}}, fault.NoSpace, ""},
		"image without a size":   {Offer{CTID: 101, Config: "VE_LAYOUT=image\n", Image: &ImageOffer{}}, fault.Protocol, "image of 0 bytes"},
		"image beyond all sizes": {Offer{CTID: 101, Config: "VE_LAYOUT=image\n", Image: &ImageOffer{Size: 1 << 60}}, fault.Protocol, "is offered"},
		"too many blocks":        {Offer{CTID: 101, Config: "VE_LAYOUT=image\n", Image: &ImageOffer{Size: 64 << 20, Allocated: much}}, fault.NoSpace, "MiB are needed"},
		"too much memory":        {Offer{CTID: 101, Live: true, Memory: much}, fault.NoSpace, "of memory are available"},
		"memory that overflows":  {Offer{CTID: 101, Live: true, Memory: 1<<64 - 1}, fault.NoSpace, ""},
		"newer CRIU":             {Offer{CTID: 101, Live: true, Criu: 999999}, fault.NoEngine, "cannot read images of criu 99.99.99"},
	} {
		d := &destination{host: h, offer: c.offer}
		wantFault(t, name, d.check(), c.kind, c.want)
	}
	stopped := Offer{CTID: 101, Config: "NAME=db\nIP_ADDRESS=10.255.255.3\nVE_PRIVATE=/root/.ssh\nVE_ROOT=/proc\n"}
	d := &destination{host: h, offer: stopped}
	if err := d.check(); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{d.c.Private(), d.c.Root()} { // not where the source says
		if !strings.HasPrefix(dir, h.Lib+"/") {
			t.Errorf("container would be in %q", dir)
		}
	}
	running := Offer{CTID: 101, Live: true, Criu: 30000}
	wantCriu(t, (&destination{host: h, offer: running}).check())
	if left, err := os.ReadDir(filepath.Join(h.Lib, "private")); err != nil || len(left) != 1 {
		t.Errorf("private areas %v, %v", left, err)
	}
}

func TestCheckDisk(t *testing.T) {
	dir := t.TempDir()
	for _, path := range []string{dir, filepath.Join(dir, "not", "yet", "there")} {
		if err := checkDisk(path, 0, 0); err != nil {
			t.Error(err)
		}
		err := checkDisk(path, 1<<60, 0)
		wantFault(t, "disk", err, fault.NoSpace, "MiB free, 1099511627840 MiB are needed")
		if fault.HintOf(err) == "" {
			t.Error("no hint")
		}
	}
	put(t, filepath.Join(dir, "file"), "")
	wantFault(t, "below a file", checkDisk(filepath.Join(dir, "file", "x"), 0, 0), fault.NoSpace, "look at free space")
}

func TestCheckMemory(t *testing.T) {
	if err := preflight.Memory(1, ""); err != nil {
		t.Error(err)
	}
	wantFault(t, "memory", preflight.Memory(1<<60, ""), fault.NoSpace, "1099511627776 MiB are needed")
}

// wantCriu checks that nothing was wrong with CRIU. It cannot work where the
// root directory is no mount point, in a plain chroot: there it must be refused.
func wantCriu(t *testing.T, err error) {
	t.Helper()
	mounts, merr := mountinfo.GetMounts(mountinfo.SingleEntryFilter("/"))
	if merr != nil {
		t.Fatal(merr)
	}
	if len(mounts) == 0 {
		wantFault(t, "in a chroot", err, fault.NoEngine, "cannot run on this kernel")
	} else if err != nil {
		t.Error(err)
	}
}

func TestCheckCriu(t *testing.T) {
	path, err := criu.Find()
	if err != nil {
		t.Fatal(err)
	}
	own, err := criu.Version(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, source := range []int{0, own, own/100*100 + 99} { // a patch release changes no image
		wantCriu(t, checkCriu(path, source))
	}
	wantFault(t, "newer source", checkCriu(path, own+100), fault.NoEngine, "cannot read images of criu "+versionText(own+100))
	wantFault(t, "no criu", checkCriu("/bin/true", 0), fault.NoEngine, "/bin/true")
}
