// Package dump takes a frozen container's state: its memory as runs of pages,
// and everything else, described by CRIU, as images.
//
// CRIU stops the tasks one by one, reads them through its parasite and writes
// images into a directory. Which memory it takes is a matter of the Mode: all
// of it, or what a tracker (package dump/track) has not taken already. The
// pages it takes it writes to a page server, which is this process (see
// pageServer), so that they go on to their destination while CRIU is still
// reading and never touch a disk.
//
// Whatever can be made ready while the container runs is made by Prepare: CRIU
// is started and waits, it knows the kernel, and copies are taken of what it
// would take long to read.
//
// The package knows nothing of networks: state goes into a Sink.
package dump

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/checkpoint-restore/go-criu/v7/rpc"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/vzkit/vzkit/dump/track"
	"github.com/vzkit/vzkit/internal/criu"
	"github.com/vzkit/vzkit/internal/fault"
)

// ghostLimit is the size, in bytes, up to which CRIU copies a file that is open
// but deleted into its images. They are in memory on both hosts (see Ghosts).
const ghostLimit = 1 << 30

// logName is CRIU's log, among the images.
const logName = "dump.log"

// timeout bounds CRIU's collecting of the tasks, in seconds. It gives up then
// and lets them go; it must not be killed.
const timeout = 10

// Sink is where a container's state goes. Both methods may keep nothing of
// the slices they are given.
type Sink interface {
	// Pages takes a run of pages.
	Pages(Run) error
	// Image takes the next bytes of the named CRIU image; last ends it.
	Image(name string, data []byte, last bool) error
}

// Config says what to dump.
type Config struct {
	Criu   string // path of the CRIU program
	Init   int    // pid of the container's init
	Freeze string // directory of its frozen cgroup
	Dir    string // empty directory for images and log, on tmpfs
	Sink   Sink
	Mode   Mode // how; Prepare chooses if it is empty
	// Groups tells CRIU to describe the cgroups of the tasks, which takes it a
	// millisecond for each thread. Without it all are in the container's own.
	Groups bool
	Cache  string // directory for what CRIU knows of the kernel, or ""
	// Then is called when all of the state is in the sink, and before CRIU
	// lets go of the tasks: files that it linked into the container's tree
	// are still there (--link-remap). An error makes the dump fail.
	Then func(Stats) error
}

// Stats tells what a dump was made of.
type Stats struct {
	Pages   uint64        // with content, of PageSize bytes
	Images  int           // files
	Bytes   uint64        // of images
	Collect time.Duration // CRIU at work, memory going out meanwhile
	Hidden  int           // questions of CRIU's that were answered in its place
}

// Dump sends all of the state of the frozen container to the sink, memory
// included. For how it does that, see Prepared.Dump.
func Dump(ctx context.Context, c Config) (Stats, error) {
	c.Mode = Copied
	p, err := Prepare(c, nil)
	if err != nil {
		return Stats{}, err
	}
	defer p.Close()
	return p.Dump(ctx, &track.Layout{})
}

func (c Config) sendRest(ctx context.Context, s *Stats) error {
	if err := c.sendImages(ctx, s); err != nil {
		return err
	}
	return c.Then(*s)
}

func (c Config) options() *rpc.CriuOpts {
	return &rpc.CriuOpts{
		ImagesDirFd:       proto.Int32(-1),
		ImagesDir:         proto.String(c.Dir),
		Pid:               proto.Int32(int32(c.Init)),
		LogFile:           proto.String(logName),
		LogLevel:          proto.Int32(4),
		LeaveRunning:      proto.Bool(true), // frozen as they are: thawing them is the way back
		TcpEstablished:    proto.Bool(true),
		FileLocks:         proto.Bool(true),
		LinkRemap:         proto.Bool(true),
		GhostLimit:        proto.Uint32(ghostLimit),
		FreezeCgroup:      proto.String(c.Freeze),
		NetworkLock:       rpc.CriuNetworkLockMethod_SKIP.Enum(), // the link is held already
		EmptyNs:           proto.Uint32(unix.CLONE_NEWNET),       // rebuilt by the destination
		ManageCgroupsMode: criu.CgroupMode(c.Groups),
		Timeout:           proto.Uint32(timeout),
	}
}

// explain makes an error of CRIU's that says what it could not dump.
func explain(err error, log string) error {
	if reason := criu.Explain(log); reason != "" {
		err = errors.New(reason)
	}
	return fault.New(fault.Checkpoint, "dump: %w", err)
}

// chunk is how much of an image is passed on at a time, in bytes.
const chunk = 256 << 10

func (c Config) sendImages(ctx context.Context, s *Stats) error {
	entries, err := os.ReadDir(c.Dir)
	if err != nil {
		return fmt.Errorf("list images: %w", err)
	}
	buf := make([]byte, chunk)
	for _, e := range entries {
		if filepath.Ext(e.Name()) != ".img" {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := c.sendImage(e.Name(), buf)
		if err != nil {
			return err
		}
		s.Images++
		s.Bytes += n
	}
	return nil
}

func (c Config) sendImage(name string, buf []byte) (sent uint64, err error) {
	f, err := os.Open(filepath.Join(c.Dir, name))
	if err != nil {
		return 0, fmt.Errorf("open image: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, fmt.Errorf("look at image: %w", err)
	}
	for last := false; !last; {
		n, err := f.Read(buf)
		if n == 0 && err != nil && info.Size() > 0 {
			return sent, fmt.Errorf("read image %q: %w", name, err)
		}
		sent += uint64(n)
		last = sent >= uint64(info.Size())
		if err := c.Sink.Image(name, buf[:n], last); err != nil {
			return sent, err
		}
	}
	return sent, nil
}
