package restore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/checkpoint-restore/go-criu/v7/rpc"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/vzkit/vzkit/internal/criu"
	"github.com/vzkit/vzkit/internal/fault"
)

// Config says what to restore, and where.
type Config struct {
	Criu string // path of the CRIU program
	// Worker is a CRIU that was started beforehand, or nil. It is used if CRIU
	// need not inherit anything.
	Worker *criu.Worker
	Dir    string // with the images; the log goes there too
	Root   string // mount point of the container's root
	// Groups has CRIU put the tasks into the cgroups that the images describe.
	// Without it they are where Connect puts the first of them.
	Groups bool
	// Connect is called with the pid of the container's init when its network
	// namespace is there, empty, and before any socket is made in it.
	Connect func(pid int) error
	// Objects are shared memory objects with the content that they had, by
	// inode number at the source: CRIU maps them and copies nothing. No process
	// may have had one open: its descriptors would all share one position and
	// access mode. Their sizes, owners, modes and seals are set here.
	Objects map[uint64]*os.File
	// Freeze is called when everything is restored and CRIU is about to let
	// the tasks go: it marks their cgroup frozen, so that none of them runs
	// before it is thawed.
	Freeze func() error
}

// Restore builds the container's processes and returns the pid of its init.
// They are all there, and frozen. On error none of them is left, or, with an
// init, they are frozen, too, and must not run.
func Restore(c Config) (init int, err error) {
	log := filepath.Join(c.Dir, "restore.log")
	notify := func(script string, pid int) error {
		switch script {
		case "setup-namespaces":
			return c.Connect(pid)
		case "pre-resume":
			return c.Freeze()
		}
		return nil
	}
	objects, err := c.objects()
	if err != nil {
		return 0, fault.Wrap(fault.Restore, err)
	}
	opts := c.options(filepath.Base(log))
	var files []*os.File
	opts.InheritFd, files = inherit(objects)
	resp, err := c.do(criu.Request{Type: rpc.CriuReqType_RESTORE, Opts: opts, Notify: notify, Files: files})
	if err != nil {
		return 0, explain(err, log)
	}
	init = int(resp.GetRestore().GetPid())
	for _, o := range objects {
		if err := o.seal(); err != nil {
			return init, fault.Wrap(fault.Restore, err)
		}
	}
	return init, nil
}

func (c Config) do(req criu.Request) (*rpc.CriuResp, error) {
	if c.Worker != nil && len(req.Files) == 0 {
		return c.Worker.Do(req)
	}
	return criu.Do(c.Criu, req)
}

func (c Config) options(log string) *rpc.CriuOpts {
	return &rpc.CriuOpts{
		ImagesDirFd:       proto.Int32(-1),
		ImagesDir:         proto.String(c.Dir),
		LogFile:           proto.String(log),
		LogLevel:          proto.Int32(4),
		Root:              proto.String(c.Root),
		TcpEstablished:    proto.Bool(true),
		FileLocks:         proto.Bool(true),
		LinkRemap:         proto.Bool(true),
		NetworkLock:       rpc.CriuNetworkLockMethod_SKIP.Enum(),
		EmptyNs:           proto.Uint32(unix.CLONE_NEWNET),
		ManageCgroupsMode: criu.CgroupMode(c.Groups),
	}
}

func explain(err error, log string) error {
	if kind := fault.KindOf(err); kind != fault.Other {
		return err // ours, from Connect or Freeze
	}
	if reason := criu.Explain(log); reason != "" {
		err = errors.New(reason)
	}
	return fault.New(fault.Restore, "restore: %w", err)
}

// KeepLog copies CRIU's restore log out of the store to path, for a person to
// read after a failure.
func KeepLog(dir, path string) error {
	text, err := os.ReadFile(filepath.Join(dir, "restore.log"))
	if err != nil {
		return fmt.Errorf("read restore log: %w", err)
	}
	return os.WriteFile(path, text, 0o600)
}
