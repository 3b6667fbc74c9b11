package template

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/internal/fault"
)

// capV2 is CAP_NET_RAW, permitted and effective, version 2.
const capV2 = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// store puts an archive into a store of its own, with metadata that edit may
// change.
func store(t *testing.T, archive []byte, edit func(*Info)) Store {
	t.Helper()
	s := Store{Dir: t.TempDir()}
	sum := sha256.Sum256(archive)
	info := Info{Name: "x", Entries: 100, Unpacked: 1 << 20, Size: int64(len(archive)), SHA256: hex.EncodeToString(sum[:])}
	if edit != nil {
		edit(&info)
	}
	js, err := json.Marshal(info)
	if err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(s.cache(), "x.tar.zst"), string(archive))
	put(t, filepath.Join(s.cache(), "x.json"), string(js))
	return s
}

func compress(t *testing.T, plain []byte) []byte {
	t.Helper()
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	return z.EncodeAll(plain, nil)
}

// archiveOf makes a tarball of entries. Regular files contain their name.
func archiveOf(t *testing.T, entries ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range entries {
		body := ""
		if h.Typeflag == tar.TypeReg {
			body = h.Name
			h.Size = int64(len(body))
		}
		if h.Mode == 0 {
			h.Mode = 0o755
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(body)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestFidelity packs a tree that has one of everything and unpacks it for a
// container that is privileged and for one that is not.
func TestFidelity(t *testing.T) {
	src := t.TempDir()
	when := time.Unix(1700000000, 123456789)
	build := func(name string, mode uint32, mk func(path string) error) {
		path := filepath.Join(src, name)
		ts, err := unix.TimeToTimespec(when)
		err = errors.Join(err, mk(path), unix.Lchown(path, 33, 44))
		if mode != 0 {
			err = errors.Join(err, unix.Chmod(path, mode))
		}
		err = errors.Join(err, unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	file := func(path string) error { return os.WriteFile(path, []byte("body"), 0o644) }
	build("dir", 0o1777, func(p string) error { return unix.Mkdir(p, 0o755) })
	build("dir/setuid", 0o6755, file)
	build("dir/hard", 0, func(p string) error { return unix.Link(filepath.Join(src, "dir/setuid"), p) })
	build("fifo", 0o620, func(p string) error { return unix.Mkfifo(p, 0o600) })
	build("link", 0, func(p string) error { return unix.Symlink("/etc/../../passwd", p) })
	build("null", 0o666, func(p string) error { return unix.Mknod(p, unix.S_IFCHR, int(unix.Mkdev(1, 3))) })
	build("ping", 0o755, func(p string) error {
		return errors.Join(file(p), unix.Setxattr(p, "user.note", []byte("\x00n\n"), 0))
	})
	if err := unix.Setxattr(filepath.Join(src, "ping"), capability, []byte(capV2), 0); err != nil {
		t.Fatal(err)
	}
	build("dir", 0o1777, func(string) error { return nil })

	var b bytes.Buffer
	entries, unpacked, err := pack(context.Background(), src, &b)
	if err != nil || entries != 7 || unpacked != 8 {
		t.Fatalf("pack: %d entries, %d bytes, %v", entries, unpacked, err)
	}
	s := store(t, compress(t, b.Bytes()), func(i *Info) { i.Entries, i.Unpacked = entries, unpacked })
	for name, shift := range map[string]IDShift{"privileged": {}, "shifted": {UID: 100000, GID: 200000}} {
		t.Run(name, func(t *testing.T) {
			dst := t.TempDir()
			if err := s.Extract(context.Background(), "x", dst, shift); err != nil {
				t.Fatal(err)
			}
			compare(t, src, dst, shift)
		})
	}
}

func compare(t *testing.T, src, dst string, shift IDShift) {
	for _, name := range []string{"dir", "dir/setuid", "dir/hard", "fifo", "link", "ping"} {
		var a, b unix.Stat_t
		if err := errors.Join(unix.Lstat(filepath.Join(src, name), &a), unix.Lstat(filepath.Join(dst, name), &b)); err != nil {
			t.Error(err)
			continue
		}
		if a.Mode != b.Mode || a.Mtim != b.Mtim || a.Nlink != b.Nlink || b.Uid != a.Uid+shift.UID || b.Gid != a.Gid+shift.GID {
			t.Errorf("%s: %+v became %+v", name, a, b)
		}
	}
	if target, err := os.Readlink(filepath.Join(dst, "link")); target != "/etc/../../passwd" {
		t.Errorf("link to %q, %v", target, err)
	}
	if _, err := os.Lstat(filepath.Join(dst, "null")); !errors.Is(err, os.ErrNotExist) {
		t.Error("a device node was made")
	}
	want := capV2
	if shift.UID != 0 {
		want = strings.Replace(capV2, "\x00\x00\x02", "\x00\x00\x03", 1) + "\xa0\x86\x01\x00"
	}
	for attr, want := range map[string]string{capability: want, "user.note": "\x00n\n"} {
		buf := make([]byte, 64)
		n, err := unix.Lgetxattr(filepath.Join(dst, "ping"), attr, buf)
		if err != nil || string(buf[:n]) != want {
			t.Errorf("%s = %q, %v, want %q", attr, buf[:max(n, 0)], err, want)
		}
	}
}

func TestShiftCapability(t *testing.T) {
	v3 := strings.Replace(capV2, "\x00\x00\x02", "\x00\x00\x03", 1)
	for _, c := range []struct {
		name, in string
		uid      uint32
		want     string // "": refused
	}{
		{"2 stays", capV2, 0, capV2},
		{"2 becomes 3", capV2, 65536, v3 + "\x00\x00\x01\x00"},
		{"3 of root becomes 2", v3 + "\x00\x00\x00\x00", 0, capV2},
		{"3 is shifted", v3 + "\x02\x00\x00\x00", 65536, v3 + "\x02\x00\x01\x00"},
		{"3 beyond the range", v3 + "\x00\x00\x01\x00", 0, ""},
		{"1", "\x01\x00\x00\x01" + capV2[4:12], 0, ""},
		{"2 with the length of 3", capV2 + "\x00\x00\x00\x00", 0, ""},
		{"3 with the length of 2", v3, 0, ""},
		{"empty", "", 0, ""},
	} {
		got, err := shiftCapability([]byte(c.in), c.uid)
		if string(got) != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s: %q, %v", c.name, got, err)
		}
	}
}

// TestHostile unpacks archives that no one should make. Each must be refused
// and must not touch anything outside.
func TestHostile(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "outside")
	put(t, filepath.Join(outside, "victim"), "whole")
	reg := func(name string) tar.Header { return tar.Header{Typeflag: tar.TypeReg, Name: name} }
	dir := func(name string) tar.Header { return tar.Header{Typeflag: tar.TypeDir, Name: name} }
	sym := func(name, target string) tar.Header {
		return tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target}
	}
	hard := func(name, target string) tar.Header {
		return tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target}
	}
	withCap := reg("f")
	withCap.PAXRecords = map[string]string{xattrRecord + capability: "short"}
	owned := func(uid, gid int) tar.Header { return tar.Header{Typeflag: tar.TypeReg, Name: "f", Uid: uid, Gid: gid} }
	for name, entries := range map[string][]tar.Header{
		"dotdot":                 {reg("../victim")},
		"dotdot inside":          {dir("a"), reg("a/../../victim")},
		"absolute":               {reg(outside + "/victim2")},
		"through a link":         {sym("a", outside), reg("a/victim2")},
		"through a relative":     {dir("d"), sym("a", "d"), reg("a/f")},
		"directory over a link":  {sym("a", outside), dir("a")},
		"over a link":            {sym("a", outside+"/victim"), reg("a")},
		"over a file":            {reg("a"), reg("a")},
		"through a file":         {reg("a"), reg("a/b")},
		"hard link out":          {hard("a", "../victim")},
		"hard link absolute":     {hard("a", outside+"/victim")},
		"hard link through link": {sym("a", outside), hard("b", "a/victim")},
		"hard link to directory": {dir("a"), hard("b", "a")},
		"hard link to root":      {hard("b", ".")},
		"hard link to nothing":   {hard("b", "a")},
		"no parent":              {reg("a/b")},
		"root is a file":         {sym(".", outside)},
		"huge uid":               {owned(65536, 0)},
		"huge gid":               {owned(0, 1<<30)},
		"negative uid":           {owned(-1, 0)},
		"long name":              {reg(strings.Repeat("a/", 2100) + "b")},
		"bad capability":         {withCap},
		"unknown type":           {{Typeflag: tar.TypeCont, Name: "a"}},
	} {
		t.Run(name, func(t *testing.T) {
			dst := t.TempDir()
			s := store(t, compress(t, archiveOf(t, entries...)), nil)
			err := s.Extract(context.Background(), "x", dst, IDShift{})
			if fault.KindOf(err) != fault.NoTemplate {
				t.Errorf("err = %v", err)
			}
			files, err := os.ReadDir(outside)
			got, _ := os.ReadFile(filepath.Join(outside, "victim"))
			if err != nil || len(files) != 1 || string(got) != "whole" {
				t.Errorf("outside has %v, %q", files, got)
			}
		})
	}
}

func TestLimits(t *testing.T) {
	plain := archiveOf(t, tar.Header{Typeflag: tar.TypeDir, Name: "./"}, tar.Header{Typeflag: tar.TypeReg, Name: "./file"})
	good := compress(t, plain)
	junk := append(append([]byte{}, plain...), make([]byte, maxTrailer+1)...)
	flipped := append([]byte{}, good...)
	flipped[len(flipped)/2] ^= 1
	for name, c := range map[string]struct {
		archive []byte
		edit    func(*Info)
	}{
		"sha256":        {good, func(i *Info) { i.SHA256 = strings.Repeat("0", 64) }},
		"entries":       {good, func(i *Info) { i.Entries = 1 }},
		"bytes":         {good, func(i *Info) { i.Unpacked = 5 }},
		"trailer":       {compress(t, junk), nil},
		"truncated tar": {compress(t, plain[:1600]), nil},
		"truncated":     {good[:len(good)-5], nil},
		"flipped bit":   {flipped, nil},
		"not zstd":      {plain, nil},
	} {
		err := store(t, c.archive, c.edit).Extract(context.Background(), "x", t.TempDir(), IDShift{})
		if fault.KindOf(err) != fault.NoTemplate || fault.HintOf(err) == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := store(t, good, nil).Extract(context.Background(), "x", t.TempDir(), IDShift{}); err != nil {
		t.Errorf("the good one: %v", err)
	}
}

func TestExtractRefusals(t *testing.T) {
	s := store(t, compress(t, archiveOf(t, tar.Header{Typeflag: tar.TypeDir, Name: "d"})), nil)
	full := t.TempDir()
	put(t, filepath.Join(full, "file"), "")
	if err := s.Extract(context.Background(), "x", full, IDShift{}); fault.KindOf(err) != fault.Exists {
		t.Errorf("full directory: %v", err)
	}
	if err := s.Extract(context.Background(), "x", full+"/none", IDShift{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing directory: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Extract(ctx, "x", t.TempDir(), IDShift{}); fault.KindOf(err) != fault.Interrupted {
		t.Errorf("cancelled: %v", err)
	}
}

// TestNoSpace unpacks into a tmpfs that is too small.
func TestNoSpace(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=4k"); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	}()
	s, _ := minimalStore(t)
	if err := s.Extract(context.Background(), Minimal, dir, IDShift{}); fault.KindOf(err) != fault.NoSpace {
		t.Errorf("err = %v", err)
	}
}
