package files

import (
	"errors"
	"sync"

	"github.com/vzkit/vzkit/internal/fault"
	"golang.org/x/sys/unix"
)

// maxSeals bounds the entries that are immutable or append-only.
const maxSeals = 1 << 20

// seals are the inodes that no change may come to any more once all is there.
// They are known by their handles: whatever moves, is deleted or replaced in
// between, a handle means the same inode or none.
type seals struct {
	mu     sync.Mutex
	inodes map[fileID]seal
}

type seal struct {
	handle unix.FileHandle
	flags  uint32
	path   string // where it was, for errors
}

// note makes flags those that an open file or directory gets in the end.
func (s *seals) note(fd int, flags uint32, path string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if flags == 0 && len(s.inodes) == 0 {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	id := fileID{st.Dev, st.Ino}
	if flags == 0 {
		delete(s.inodes, id)
		return nil
	}
	if len(s.inodes) >= maxSeals {
		return fault.New(fault.Copy, "more than %d immutable or append-only entries", maxSeals)
	}
	var x fsxattr
	if err := x.ioctl(fd, getXattr); err != nil {
		return err
	}
	h, _, err := unix.NameToHandleAt(fd, "", unix.AT_EMPTY_PATH)
	if err != nil {
		return err
	}
	if s.inodes == nil {
		s.inodes = make(map[fileID]seal)
	}
	s.inodes[id] = seal{h, flags, path}
	return nil
}

// apply sets the flags on all inodes that still exist, or takes them off again.
func (s *seals) apply(root int, on bool, lose func(path string, err error) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, x := range s.inodes {
		flags := x.flags
		if !on {
			flags = 0
		}
		err := x.set(root, flags)
		if errors.Is(err, unix.ESTALE) || errors.Is(err, unix.ENOENT) {
			delete(s.inodes, id)
			continue
		}
		if unsupported(err) {
			err = lose(x.path, err)
		}
		if err != nil {
			return pathError("set flags of", x.path, err)
		}
	}
	return nil
}

func (x *seal) set(root int, flags uint32) error {
	fd, err := unix.OpenByHandleAt(root, x.handle, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return setSeal(fd, flags)
}

func setSeal(fd int, flags uint32) error {
	_, project, err := readFlags(fd)
	if err != nil {
		return err
	}
	return writeFlags(fd, sealing, flags, project)
}
