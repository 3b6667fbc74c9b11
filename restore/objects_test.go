package restore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/checkpoint-restore/go-criu/v7/crit/images/memfd"
	"github.com/checkpoint-restore/go-criu/v7/crit/images/userns"
	"github.com/checkpoint-restore/go-criu/v7/rpc"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/vzkit/vzkit/internal/criu"
	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/internal/mountns"
)

// asSharer makes the test binary a process with shared anonymous memory, which
// writes its address to the file of that name.
const asSharer = "RESTORE_TEST_AS_SHARER"

func TestMain(m *testing.M) {
	if path := os.Getenv(asSharer); path != "" {
		if err := share(path); err != nil {
			panic(err)
		}
		select {}
	}
	os.Exit(m.Run())
}

const sharedPages = 64

func share(path string) error {
	b, err := unix.Mmap(-1, 0, sharedPages*PageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANON)
	if err != nil {
		return err
	}
	copy(b, "as it was dumped")
	go func() { // a process with nothing to do would be a deadlock
		for {
			time.Sleep(time.Hour)
		}
	}()
	text := fmt.Sprint(uintptr(unsafe.Pointer(&b[0])))
	return errors.Join(os.WriteFile(path+".new", []byte(text), 0o600), os.Rename(path+".new", path))
}

// dumpSharer dumps such a process into dir, and returns its pid, the address
// and the inode number of its shared memory.
func dumpSharer(t *testing.T, path, dir string) (pid int, address int64, inode uint64) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "address")
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), asSharer+"="+file)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if text, err := os.ReadFile(file); err == nil {
			if _, err := fmt.Sscan(string(text), &address); err != nil {
				t.Fatal(err)
			}
			break
		}
		if time.Now().After(end) {
			t.Fatal("the process does not come up")
		}
	}
	pid = cmd.Process.Pid
	link := fmt.Sprintf("/proc/%d/map_files/%x-%x", pid, address, address+sharedPages*PageSize)
	var stat unix.Stat_t
	if err := unix.Stat(link, &stat); err != nil {
		t.Fatal(err)
	}
	_, err := criu.Do(path, criu.Request{Type: rpc.CriuReqType_DUMP, Opts: &rpc.CriuOpts{
		ImagesDirFd: proto.Int32(-1), ImagesDir: &dir, Pid: proto.Int32(int32(pid)), LogFile: proto.String("dump.log"),
		LogLevel: proto.Int32(4), FileLocks: proto.Bool(true), ManageCgroupsMode: rpc.CriuCgMode_IGNORE.Enum(),
		NetworkLock: rpc.CriuNetworkLockMethod_SKIP.Enum(),
	}})
	if err != nil {
		t.Fatalf("dump: %v: %s", err, criu.Explain(filepath.Join(dir, "dump.log")))
	}
	_ = cmd.Wait()
	return pid, address, stat.Ino
}

// A real process gets a memfd of ours in place of its shared memory.
func TestInheritedObject(t *testing.T) {
	if mountns.Chrooted() {
		t.Skip("CRIU does not work in a chroot")
	}
	path, err := criu.Find()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	pid, address, inode := dumpSharer(t, path, dir)
	fd, err := unix.MemfdCreate("test", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), "test")
	defer file.Close()
	if _, err := file.WriteAt([]byte("as it came"), 0); err != nil {
		t.Fatal(err)
	}
	objects, err := Config{Dir: dir, Objects: map[uint64]*os.File{inode: file}}.objects()
	if err != nil || len(objects) != 1 {
		t.Fatalf("%d objects, %v", len(objects), err)
	}
	fds, files := inherit(objects)
	_, err = criu.Do(path, criu.Request{Type: rpc.CriuReqType_RESTORE, Files: files, Opts: &rpc.CriuOpts{
		ImagesDirFd: proto.Int32(-1), ImagesDir: &dir, LogFile: proto.String("restore.log"), LogLevel: proto.Int32(4),
		ManageCgroupsMode: rpc.CriuCgMode_IGNORE.Enum(), FileLocks: proto.Bool(true), InheritFd: fds,
	}})
	if err != nil {
		t.Fatalf("restore: %v: %s", err, criu.Explain(filepath.Join(dir, "restore.log")))
	}
	defer func() { _ = unix.Kill(pid, unix.SIGKILL) }()
	if err := objects[0].seal(); err != nil {
		t.Error(err)
	}
	memory, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", pid), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer memory.Close()
	got := make([]byte, 10)
	if _, err := memory.ReadAt(got, address); err != nil || string(got) != "as it came" {
		t.Errorf("the process has %q, %v", got, err)
	}
	if _, err := memory.WriteAt([]byte("written by it"), address+63*PageSize); err != nil {
		t.Error(err)
	}
	got = make([]byte, 13)
	if _, err := file.ReadAt(got, 63*PageSize); err != nil || string(got) != "written by it" {
		t.Errorf("the object has %q, %v", got, err)
	}
	if seals, err := unix.FcntlInt(file.Fd(), unix.F_GET_SEALS, 0); err != nil || seals != unix.F_SEAL_SEAL {
		t.Errorf("seals %#x, %v", seals, err)
	}
}

func memfdEntry(t *testing.T, shmid uint32, mode uint64) []byte {
	t.Helper()
	b, err := proto.Marshal(&memfd.MemfdInodeEntry{
		Name: proto.String("/dev/zero"), Uid: proto.Uint32(5), Gid: proto.Uint32(99), Size: proto.Uint64(12345),
		Shmid: &shmid, Seals: proto.Uint32(1), InodeId: proto.Uint64(uint64(shmid)),
	})
	if err != nil {
		t.Fatal(err)
	}
	return protowire.AppendVarint(protowire.AppendTag(b, 9, protowire.VarintType), mode)
}

func TestObjects(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "memfd.img")
	first, second := memfdEntry(t, 7, unix.S_IFREG|0o640), memfdEntry(t, 8, unix.S_IFREG|0o777)
	if err := writeImage(path, memfdMagic, [][]byte{first, second}); err != nil {
		t.Fatal(err)
	}
	extents := []*userns.UidGidExtent{{First: proto.Uint32(0), LowerFirst: proto.Uint32(100000), Count: proto.Uint32(50)}}
	owners, err := proto.Marshal(&userns.UsernsEntry{UidMap: extents, GidMap: extents})
	if err != nil {
		t.Fatal(err)
	}
	if err := writeImage(filepath.Join(dir, "userns-10.img"), usernsMagic, [][]byte{owners}); err != nil {
		t.Fatal(err)
	}
	file, err := os.Create(filepath.Join(t.TempDir(), "object"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	objects, err := Config{Dir: dir, Objects: map[uint64]*os.File{1<<32 | 8: file, 99: file}}.objects()
	if err != nil || len(objects) != 1 || objects[0].name != "vzkit-8" || objects[0].file != file {
		t.Fatalf("objects %v, %v", objects, err)
	}
	var stat unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &stat); err != nil {
		t.Fatal(err)
	}
	if stat.Size != 12345 || stat.Uid != 100005 || stat.Gid != 0 || stat.Mode&0o7777 != 0o777 {
		t.Errorf("object of %d bytes, owner %d:%d, mode %o", stat.Size, stat.Uid, stat.Gid, stat.Mode)
	}
	messages, err := readImage(path, memfdMagic)
	if err != nil || len(messages) != 2 || !bytes.Equal(messages[0], first) {
		t.Fatalf("image has %x, %v", messages, err)
	}
	var e memfd.MemfdInodeEntry
	if err := proto.Unmarshal(messages[1], &e); err != nil || e.GetName() != "vzkit-8" || e.GetSize() != 12345 {
		t.Errorf("entry %v, %v", &e, err)
	}
	if mode, ok := modeOf(&e); !ok || mode != unix.S_IFREG|0o777 {
		t.Errorf("mode %o, %v", mode, ok)
	}
}

func TestDamagedImage(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "memfd.img")
	if err := writeImage(path, memfdMagic, [][]byte{memfdEntry(t, 7, 0)}); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	c := Config{Dir: dir, Objects: map[uint64]*os.File{1: nil}}
	for size := range len(whole) {
		if err := os.WriteFile(path, whole[:size], 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := c.objects()
		if clean := size == 8; clean != (err == nil) || !clean && fault.KindOf(err) != fault.Protocol {
			t.Errorf("cut at %d: %v", size, err)
		}
	}
	huge := binary.LittleEndian.AppendUint32(imageHead(memfdMagic), 1<<31)
	if err := os.WriteFile(path, huge, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := c.objects(); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("message of 2 GiB: %v", err)
	}
}
