package watch

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// pause lets events gather, so that a busy file system does not wake this
// process for every one of them.
const pause = 2 * time.Millisecond

// maxQueued is how many events the kernel may hold for this process before the
// watch gives up; each takes some 200 bytes there.
const maxQueued = 1 << 19

// ErrBehind is what Take returns when events came faster than they could be
// read, for so long that the watch has ended.
var ErrBehind = errors.New("file system changes faster than it can be watched")

// Watch is one watch of one file system.
type Watch struct {
	file  *os.File
	conn  syscall.RawConn
	inode layout
	done  chan struct{} // closed when drain has ended

	taking  sync.Mutex          // held by Take
	unknown map[uint64]struct{} // directories that Take did not know; guarded by taking

	mu        sync.Mutex
	buf       []byte // guarded by mu, as all below
	seen      *seen
	maxQueued int
	full      int   // reads in a row that filled the buffer
	err       error // why the watch has ended
}

// Changes is what may have changed. A directory is in Names or in Dirs, never
// in both; either way, its own metadata may have changed too.
type Changes struct {
	// Names has, by inode number of the directory, the entries of it that were
	// created, deleted, moved or written, or whose metadata changed. No entry
	// means that it is about the directory itself only.
	Names map[uint64]map[string]struct{}
	// Dirs are directories of which any entry may have changed: too many names,
	// or not known when it happened.
	Dirs map[uint64]struct{}
	// Files are the inode numbers of objects that were written or moved, or whose
	// metadata or number of links changed, and that were no directories then.
	// They need not be in the tree.
	Files map[uint64]struct{}
}

// Open begins to watch the file system that the directory root is on; any
// descriptor of it does, O_PATH too, and it may be closed after. The error says
// why the file system cannot be watched.
func Open(root *os.File) (*Watch, error) {
	w, err := open(root, unix.FAN_UNLIMITED_QUEUE)
	if err != nil {
		return nil, err
	}
	go w.drain()
	return w, nil
}

// open is Open with the queue as told, and without what drains it.
func open(root *os.File, queue uint) (*Watch, error) {
	inode, err := layoutOf(root)
	if err != nil {
		return nil, err
	}
	fd, err := openGroup(root, queue)
	if err != nil {
		return nil, err
	}
	w := &Watch{
		file: os.NewFile(uintptr(fd), "fanotify"), inode: inode, done: make(chan struct{}),
		buf: make([]byte, bufferLen), seen: newSeen(maxWeight), maxQueued: maxQueued,
	}
	if w.conn, err = w.file.SyscallConn(); err != nil {
		w.file.Close()
		return nil, fmt.Errorf("fanotify: %w", err)
	}
	return w, nil
}

// drain reads events as they come, until the watch is closed or has failed.
func (w *Watch) drain() {
	defer close(w.done)
	for {
		more := false
		err := w.conn.Read(func(fd uintptr) bool {
			w.mu.Lock()
			defer w.mu.Unlock()
			n, _, read := w.step(int(fd))
			more = n >= nearlyFull
			return read
		})
		if err != nil {
			return
		}
		if w.ended() {
			w.file.Close() // and with it the queue, which may be long
			return
		}
		if !more {
			time.Sleep(pause)
		}
	}
}

func (w *Watch) ended() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err != nil
}
