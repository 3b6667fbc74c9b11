package criu

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/internal/criu/preload"
	"github.com/vzkit/vzkit/internal/mountns"
)

// stageName is the name under which this program becomes CRIU.
const stageName = "vz-criu"

// stage is what is to be made before CRIU runs, in a mount namespace of its
// own.
type stage struct {
	Path    string
	Args    []string
	Known   string // file with CRIU's knowledge of the kernel; it is written if Learn
	Learn   bool
	Binds   []Bind
	Preload string
	Calls   int // descriptor of the library's socket
	Status  int // descriptor where an error is written

	env []string // of CRIU
}

// Here and not in the mains: what is re-executed is also a test.
func init() {
	if os.Args[0] != stageName || len(os.Args) != 2 {
		return
	}
	runtime.LockOSThread()
	var s stage
	err := json.Unmarshal([]byte(os.Args[1]), &s)
	if err == nil {
		unix.CloseOnExec(s.Status)
		err = s.run()
	}
	if err != nil {
		fmt.Fprint(os.NewFile(uintptr(s.Status), "status"), err)
		os.Exit(1)
	}
	os.Exit(0)
}

func startStaged(path string, files []*os.File, env []string, o StartOptions) (*exec.Cmd, error) {
	s := stage{Path: path, Args: []string{"swrk", "3"}, Binds: o.Binds, Preload: o.Preload, env: env}
	if o.Cache != "" {
		known, err := knownFile(path, o.Cache)
		if err != nil {
			return nil, err
		}
		s.Known = known
	}
	if o.Calls != nil {
		s.Calls = 3 + len(files)
		files = append(files, o.Calls)
	}
	return s.start(files)
}

// ownMounts makes sure that mounts can be kept from the machine. In a chroot
// whose root is no mount point they would reach it; CRIU refuses to work there
// anyway.
func ownMounts() error {
	if mountns.Chrooted() {
		return errors.New("the root of this chroot is no mount point")
	}
	return nil
}

// start returns when CRIU has taken the child's place, or the child has ended.
func (s stage) start(files []*os.File) (*exec.Cmd, error) {
	if err := ownMounts(); err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	defer w.Close()
	s.Status = 3 + len(files)
	spec, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Args, cmd.Env = []string{stageName, string(spec)}, s.env
	cmd.ExtraFiles = append(files[:len(files):len(files)], w)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	mountns.Private(cmd.SysProcAttr)
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	w.Close()
	text, err := io.ReadAll(io.LimitReader(r, 4096))
	if err == nil && len(text) > 0 {
		err = errors.New(string(text))
	}
	if err != nil {
		return nil, errors.Join(err, cmd.Wait())
	}
	return cmd, nil
}

func (s stage) run() error {
	if s.Known != "" {
		if err := s.mountRun(); err != nil {
			return err
		}
	}
	for _, b := range s.Binds {
		if err := unix.Mount(b.From, b.To, "", unix.MS_BIND, ""); err != nil && !gone(b.To) {
			return fmt.Errorf("bind %q to %q: %w", b.From, b.To, err)
		}
	}
	if s.Learn {
		return s.learn()
	}
	if s.Calls != 0 {
		if err := unix.Dup3(s.Calls, preload.FD, 0); err != nil {
			return fmt.Errorf("pass on socket: %w", err)
		}
		_ = unix.Close(s.Calls)
	}
	env := os.Environ()
	if s.Preload != "" {
		env = append(env, "LD_PRELOAD="+s.Preload)
	}
	return syscall.Exec(s.Path, append([]string{s.Path}, s.Args...), env)
}

// gone tells whether path, of a process, has ended with it.
func gone(path string) bool {
	_, err := os.Stat(path)
	return errors.Is(err, os.ErrNotExist)
}

// CRIU keeps what it knows of the kernel in this file, if it is on a tmpfs,
// and reads it from anywhere (criu/kerndat.c).
const (
	runDir   = "/run"
	kernData = "/run/criu.kdat"
)

// mountRun makes /run a tmpfs on which the directories of the old one are
// mounted and CRIU's knowledge is put.
func (s stage) mountRun() error {
	kept, err := directories(runDir)
	if err != nil {
		return err
	}
	known, err := os.ReadFile(s.Known)
	if err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("read criu's knowledge: %w", err)
	}
	if err := unix.Mount("tmpfs", runDir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return fmt.Errorf("mount tmpfs: %w", err)
	}
	for name, fd := range kept {
		if err := mountAgain(fd, filepath.Join(runDir, name)); err != nil {
			return err
		}
	}
	if len(known) == 0 {
		return nil
	}
	return os.WriteFile(kernData, known, 0o600)
}

// directories are mounts of the directories in dir by name. Only directories
// count: files and sockets in /run are nothing to CRIU.
func directories(dir string) (map[string]int, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list %q: %w", dir, err)
	}
	mounts := map[string]int{}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		fd, err := unix.OpenTree(unix.AT_FDCWD, filepath.Join(dir, e.Name()), unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
		if errors.Is(err, unix.ENOENT) { // removed meanwhile
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("take %q: %w", e.Name(), err)
		}
		mounts[e.Name()] = fd
	}
	return mounts, nil
}

func mountAgain(fd int, to string) error {
	defer unix.Close(fd)
	if err := os.Mkdir(to, 0o755); err != nil {
		return err
	}
	if err := unix.MoveMount(fd, "", unix.AT_FDCWD, to, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount %q again: %w", to, err)
	}
	return nil
}

func onTmpfs(path string) (bool, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return false, fmt.Errorf("look at %q: %w", path, err)
	}
	return st.Type == unix.TMPFS_MAGIC, nil
}
