// Package dump takes a frozen container's state: its memory as runs of pages,
// and everything else, described by CRIU, as images.
//
// CRIU stops the tasks one by one, reads them through its parasite and writes
// images into a directory; the pages it writes to a page server, which is this
// process (see PageServer), so that memory goes on to its destination while
// CRIU is still reading and never touches a disk. Which memory has to be taken
// while the container stands still is a Tracker's business.
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

	"github.com/vzkit/vzkit/internal/criu"
	"github.com/vzkit/vzkit/internal/fault"
)

// ghostLimit is the size, in bytes, up to which CRIU copies a file that is open
// but deleted into its images. They are in memory on both hosts (see Ghosts).
const ghostLimit = 1 << 30

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
}

// Dump sends the state of the frozen container to the sink. The container is
// frozen before and after, whether or not the dump succeeds. A dump that has
// begun is not cut short: when ctx ends, pages are discarded and the rest is
// quick.
func Dump(ctx context.Context, c Config) (Stats, error) {
	start := time.Now()
	server, err := newPageServer(ctx, c.Sink)
	if err != nil {
		return Stats{}, err
	}
	var s Stats
	var failed error // in our part, which CRIU only hears of
	notify := func(script string, _ int) error {
		if script == "post-dump" {
			s.Pages, failed = server.finish()
			s.Collect = time.Since(start)
			if failed == nil {
				failed = c.sendRest(ctx, &s)
			}
		}
		return failed
	}
	log := filepath.Join(c.Dir, "dump.log")
	_, err = criu.Do(c.Criu, criu.Request{
		Type: rpc.CriuReqType_DUMP, Opts: c.options(filepath.Base(log)), Files: []*os.File{server.theirs}, Notify: notify,
	})
	if _, perr := server.finish(); failed == nil {
		failed = perr
	}
	switch {
	case failed != nil:
		return s, failed
	case err != nil:
		return s, explain(err, log)
	}
	return s, nil
}

func (c Config) sendRest(ctx context.Context, s *Stats) error {
	if err := c.sendImages(ctx, s); err != nil {
		return err
	}
	return c.Then(*s)
}

func (c Config) options(log string) *rpc.CriuOpts {
	return &rpc.CriuOpts{
		ImagesDirFd:       proto.Int32(-1),
		ImagesDir:         proto.String(c.Dir),
		Pid:               proto.Int32(int32(c.Init)),
		LogFile:           proto.String(log),
		LogLevel:          proto.Int32(4),
		LeaveRunning:      proto.Bool(true), // frozen as they are: thawing them is the way back
		TcpEstablished:    proto.Bool(true),
		FileLocks:         proto.Bool(true),
		LinkRemap:         proto.Bool(true),
		GhostLimit:        proto.Uint32(ghostLimit),
		FreezeCgroup:      proto.String(c.Freeze),
		NetworkLock:       rpc.CriuNetworkLockMethod_SKIP.Enum(), // the link is held already
		EmptyNs:           proto.Uint32(unix.CLONE_NEWNET),       // rebuilt by the destination
		ManageCgroupsMode: rpc.CriuCgMode_SOFT.Enum(),
		Timeout:           proto.Uint32(timeout),
		Ps:                &rpc.CriuPageServerInfo{Fd: proto.Int32(criu.FirstFile)},
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
