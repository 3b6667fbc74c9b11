package watch

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// checkEvery is how many reads in a row fill the buffer before the length of
// the queue is looked at: the kernel counts it event by event.
const checkEvery = 64

// Take returns what has changed since the last Take, by every operation that
// was over before the call, and forgets it. known tells whether the inode of a
// directory belongs to the tree by now. lost means that anything may have
// changed, and that c is empty: the queue has overflowed, too much has changed,
// or something was not understood; the watch goes on. With an error it has
// ended, and everything is lost too.
func (w *Watch) Take(known func(dirInode uint64) bool) (c Changes, lost bool, err error) {
	w.taking.Lock()
	defer w.taking.Unlock()
	s, err := w.swap()
	if err != nil {
		return Changes{}, true, err
	}
	if s.lost {
		w.unknown = nil // the caller is about to look at everything
		return Changes{}, true, nil
	}
	w.unknown = s.split(known, w.unknown)
	return s.Changes, false, nil
}

// Close ends the watch. It may be called again, and while Take runs.
func (w *Watch) Close() error {
	w.mu.Lock()
	if w.err == nil {
		w.err = os.ErrClosed
	}
	w.mu.Unlock()
	err := w.file.Close()
	<-w.done
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}

// swap reads what is in the queue and puts an empty seen in place of the one it
// returns.
func (w *Watch) swap() (*seen, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	err := w.conn.Control(func(fd uintptr) { w.catchUp(int(fd)) })
	if w.err != nil {
		return nil, w.err
	}
	if err != nil {
		return nil, err
	}
	s := w.seen
	w.seen = newSeen(s.limit)
	return s, nil
}

// catchUp reads as many events as are in the queue now. It does not read until
// the queue is empty: on a busy file system that may be never.
func (w *Watch) catchUp(fd int) {
	left, err := queued(fd)
	if err != nil {
		w.fail(err)
	}
	for left > 0 && w.err == nil {
		_, events, more := w.step(fd)
		if !more {
			return
		}
		left -= events
	}
}

// step reads a buffer of events. more is false if there was none.
func (w *Watch) step(fd int) (bytes, events int, more bool) {
	n, err := unix.Read(fd, w.buf)
	switch {
	case errors.Is(err, unix.EAGAIN):
		return 0, 0, false
	case errors.Is(err, unix.EINTR):
		return 0, 0, true
	case err != nil:
		w.fail(os.NewSyscallError("read fanotify", err))
		return 0, 0, true
	}
	err = each(w.buf[:n], w.inode, func(e event) {
		events++
		w.seen.add(e)
	})
	if err != nil {
		w.seen.lose()
	}
	w.checkQueue(fd, n)
	return n, events, true
}

// checkQueue ends the watch if the queue grows without end.
func (w *Watch) checkQueue(fd, n int) {
	if n < nearlyFull {
		w.full = 0
		return
	}
	if w.full++; w.full%checkEvery != 0 {
		return
	}
	if n, err := queued(fd); err != nil {
		w.fail(err)
	} else if n > w.maxQueued {
		w.fail(ErrBehind)
	}
}

// queued returns the number of events in the queue. fanotify counts each as if
// it had no records.
func queued(fd int) (int, error) {
	n, err := unix.IoctlGetUint32(fd, unix.TIOCINQ) // which is FIONREAD
	return int(n) / metadataLen, os.NewSyscallError("fanotify FIONREAD", err)
}

func (w *Watch) fail(err error) {
	if w.err == nil {
		w.err = err
	}
	w.seen.lose()
}
