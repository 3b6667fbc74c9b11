package criu_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/checkpoint-restore/go-criu/v7/rpc"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/vzkit/vzkit/internal/criu"
	"github.com/vzkit/vzkit/internal/criu/preload"
	"github.com/vzkit/vzkit/internal/mountns"
)

// needMounts skips where no mount can be kept from the machine.
func needMounts(t *testing.T) {
	t.Helper()
	if mountns.Chrooted() {
		t.Skip("root is no mount point")
	}
}

func start(t *testing.T, o criu.StartOptions) *criu.Worker {
	t.Helper()
	w, err := criu.Start(find(t), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

func wantVersion(t *testing.T, w *criu.Worker) {
	t.Helper()
	resp, err := w.Do(criu.Request{Type: rpc.CriuReqType_VERSION})
	if err != nil || resp.GetVersion().GetMajorNumber() == 0 {
		t.Errorf("version: %v, %v", resp, err)
	}
}

// check has CRIU look at the kernel, and returns its log.
func check(t *testing.T, o criu.StartOptions) string {
	t.Helper()
	dir := t.TempDir()
	opts := &rpc.CriuOpts{ImagesDirFd: proto.Int32(-1), ImagesDir: proto.String(dir), LogFile: proto.String("log"), LogLevel: proto.Int32(4)}
	if _, err := start(t, o).Do(criu.Request{Type: rpc.CriuReqType_CHECK, Opts: opts}); err != nil {
		t.Fatal(err)
	}
	log, err := os.ReadFile(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	return string(log)
}

func TestWarm(t *testing.T) {
	needMounts(t)
	cache := filepath.Join(t.TempDir(), "cache")
	before, _ := os.Stat("/run/criu.kdat")
	for range 2 {
		if err := criu.Warm(find(t), cache); err != nil {
			t.Fatal(err)
		}
	}
	if log := check(t, criu.StartOptions{Cache: cache}); !strings.Contains(log, "Loaded kdat cache") {
		t.Errorf("CRIU looks anew: %s", log)
	}
	var st unix.Statfs_t
	if err := unix.Statfs("/run", &st); err != nil {
		t.Fatal(err)
	}
	after, _ := os.Stat("/run/criu.kdat")
	if st.Type != unix.TMPFS_MAGIC && (before == nil) != (after == nil) {
		t.Errorf("file in /run: %v before, %v after", before, after)
	}
	if st.Type != unix.TMPFS_MAGIC {
		files, err := os.ReadDir(cache)
		if err != nil || len(files) != 2 { // what it knows of the kernel, and tools
			t.Errorf("cache has %v, %v", files, err)
		}
	}
}

func TestWarmWithWhatIsNoCriu(t *testing.T) {
	if err := criu.Warm(filepath.Join(t.TempDir(), "none"), t.TempDir()); err == nil {
		t.Error("no error")
	}
}

// A cold cache is no error: CRIU looks at the kernel itself.
func TestColdCache(t *testing.T) {
	needMounts(t)
	check(t, criu.StartOptions{Cache: t.TempDir()})
}

func TestBinds(t *testing.T) {
	needMounts(t)
	dir := t.TempDir()
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	for path, text := range map[string]string{from: "new", to: "old"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	gone := criu.Bind{From: from, To: filepath.Join(dir, "gone")}
	w := start(t, criu.StartOptions{Binds: []criu.Bind{gone, {From: from, To: to}}})
	seen, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(w.PID()), "root", to))
	if err != nil || string(seen) != "new" {
		t.Errorf("CRIU sees %q, %v", seen, err)
	}
	if here, err := os.ReadFile(to); err != nil || string(here) != "old" {
		t.Errorf("the machine sees %q, %v", here, err)
	}
	wantVersion(t, w)
	if _, err := criu.Start(find(t), criu.StartOptions{Binds: []criu.Bind{{From: filepath.Join(dir, "none"), To: to}}}); err == nil {
		t.Error("bind of a missing file: no error")
	}
}

func TestPreload(t *testing.T) {
	needMounts(t)
	library := filepath.Join(t.TempDir(), "answers.so")
	if err := preload.WriteFile(library); err != nil {
		t.Fatal(err)
	}
	asked := map[uint64]int{}
	s, err := preload.Serve(func(c preload.Call) preload.Answer {
		asked[c.Number]++
		return preload.Answer{}
	})
	if err != nil {
		t.Fatal(err)
	}
	o := criu.StartOptions{Preload: library, Calls: s.Theirs}
	log := check(t, o)
	s.Close() // and no call comes after it
	if !strings.Contains(log, "Loaded kdat cache") && asked[unix.SYS_IOCTL] == 0 {
		t.Errorf("CRIU looked at the kernel without PAGEMAP_SCAN: %v", asked)
	}
}

func TestCloseWithoutRequest(t *testing.T) {
	w := start(t, criu.StartOptions{})
	pid := w.PID()
	w.Close()
	w.Close()
	if err := unix.Kill(pid, 0); err != unix.ESRCH {
		t.Errorf("worker after Close: %v", err)
	}
}

func TestWorkerHasFiles(t *testing.T) {
	needMounts(t)
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, o := range []criu.StartOptions{{}, {Cache: t.TempDir(), Binds: []criu.Bind{}}} {
		o.Files = []*os.File{f}
		w := start(t, o)
		link, err := os.Readlink(filepath.Join("/proc", strconv.Itoa(w.PID()), "fd", strconv.Itoa(criu.FirstFile)))
		if err != nil || link != os.DevNull {
			t.Errorf("descriptor %d is %q, %v", criu.FirstFile, link, err)
		}
		wantVersion(t, w)
	}
}
