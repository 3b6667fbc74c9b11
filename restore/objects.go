package restore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/checkpoint-restore/go-criu/v7/crit/images/memfd"
	"github.com/checkpoint-restore/go-criu/v7/crit/images/userns"
	"github.com/checkpoint-restore/go-criu/v7/magic"
	"github.com/checkpoint-restore/go-criu/v7/rpc"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/vzkit/vzkit/internal/criu"
	"github.com/vzkit/vzkit/internal/fault"
)

// maxMessage bounds a message of an image, and maxImage an image, in bytes.
const (
	maxMessage = 1 << 20
	maxImage   = 256 << 20
)

// The magic numbers of the images.
var (
	commonMagic = uint32(magic.LoadMagic().ByName["IMG_COMMON"])
	memfdMagic  = uint32(magic.LoadMagic().ByName["MEMFD_INODE"])
	usernsMagic = uint32(magic.LoadMagic().ByName["USERNS"])
)

// object is a shared memory object that CRIU is given rather than builds: CRIU
// dumps shared anonymous memory and memfds alike, as memfds that are found by
// their names (criu/memfd.c). Most are called "/dev/zero", so each that we
// have gets a name of its own.
type object struct {
	file  *os.File
	name  string
	seals int
}

// objects prepares the objects that the images speak of and we have, and names
// them in the images.
func (c Config) objects() (found []object, err error) {
	if len(c.Objects) == 0 {
		return nil, nil
	}
	path := filepath.Join(c.Dir, "memfd.img")
	messages, err := readImage(path, memfdMagic)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	owners, err := c.owners()
	if err != nil {
		return nil, err
	}
	seen := map[uint32]bool{}
	for n, message := range messages {
		var e memfd.MemfdInodeEntry
		if err := proto.Unmarshal(message, &e); err != nil {
			return nil, fault.New(fault.Protocol, "image %q: %w", "memfd.img", err)
		}
		file := c.object(e.GetShmid())
		if file == nil || e.HugetlbFlag != nil || seen[e.GetShmid()] {
			continue
		}
		seen[e.GetShmid()] = true
		o := object{file, fmt.Sprintf("vzkit-%d", e.GetShmid()), int(e.GetSeals())}
		if err := o.prepare(&e, owners); err != nil {
			return nil, err
		}
		e.Name = &o.name
		if messages[n], err = proto.Marshal(&e); err != nil {
			return nil, fmt.Errorf("encode %q: %w", path, err)
		}
		found = append(found, o)
	}
	return found, writeImage(path, memfdMagic, messages)
}

// object finds an object by the number that CRIU gives it, which is the low
// half of its inode's.
func (c Config) object(shmid uint32) *os.File {
	for inode, file := range c.Objects {
		if uint32(inode) == shmid {
			return file
		}
	}
	return nil
}

// prepare gives the object the size, the owner and the mode that it had.
func (o object) prepare(e *memfd.MemfdInodeEntry, owners *userns.UsernsEntry) error {
	size := int64(e.GetSize())
	if size < 0 {
		return fault.New(fault.Protocol, "shared memory object of %d bytes", e.GetSize())
	}
	err := o.file.Truncate(size)
	if err == nil {
		err = o.file.Chown(outside(owners.GetUidMap(), e.GetUid()), outside(owners.GetGidMap(), e.GetGid()))
	}
	if mode, ok := modeOf(e); ok && err == nil {
		err = unix.Fchmod(int(o.file.Fd()), mode&0o7777)
	}
	if err != nil {
		return fmt.Errorf("prepare shared memory: %w", err)
	}
	return nil
}

// seal seals the object as it was, once it is mapped everywhere.
func (o object) seal() error {
	if _, err := unix.FcntlInt(o.file.Fd(), unix.F_ADD_SEALS, o.seals); err != nil {
		return fmt.Errorf("seal shared memory: %w", err)
	}
	return nil
}

// modeOf reads the field "mode", which go-criu's message does not have yet.
func modeOf(e *memfd.MemfdInodeEntry) (mode uint32, ok bool) {
	const field = 9
	for rest := []byte(e.ProtoReflect().GetUnknown()); len(rest) > 0; {
		number, typ, n := protowire.ConsumeTag(rest)
		if n < 0 {
			return 0, false
		}
		rest = rest[n:]
		if number == field && typ == protowire.VarintType {
			value, n := protowire.ConsumeVarint(rest)
			return uint32(value), n > 0
		}
		if n = protowire.ConsumeFieldValue(number, typ, rest); n < 0 {
			return 0, false
		}
		rest = rest[n:]
	}
	return 0, false
}

// owners reads how the container's user ids are numbered on the host; without a
// user namespace there is nothing.
func (c Config) owners() (*userns.UsernsEntry, error) {
	paths, err := filepath.Glob(filepath.Join(c.Dir, "userns-*.img"))
	if err != nil || len(paths) == 0 {
		return nil, err
	}
	messages, err := readImage(paths[0], usernsMagic)
	if err != nil {
		return nil, err
	}
	var e userns.UsernsEntry
	for _, message := range messages {
		if err := proto.Unmarshal(message, &e); err != nil {
			return nil, fault.New(fault.Protocol, "image %q: %w", filepath.Base(paths[0]), err)
		}
	}
	return &e, nil
}

// outside translates an id; one that has none outside stays with root.
func outside(extents []*userns.UidGidExtent, id uint32) int {
	if len(extents) == 0 {
		return int(id)
	}
	for _, e := range extents {
		if first := e.GetFirst(); id >= first && id-first < e.GetCount() {
			return int(e.GetLowerFirst() + id - first)
		}
	}
	return 0
}

// readImage reads an image's messages: two magic numbers, then each with its
// size before it (criu.org/Images).
func readImage(path string, number uint32) (messages [][]byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r := io.LimitReader(f, maxImage)
	head := make([]byte, 8)
	if _, err := io.ReadFull(r, head); err != nil || !bytes.Equal(head, imageHead(number)) {
		return nil, fault.New(fault.Protocol, "image %q is none of its kind", filepath.Base(path))
	}
	for {
		var size [4]byte
		_, err := io.ReadFull(r, size[:])
		if err == io.EOF {
			return messages, nil
		}
		length := binary.LittleEndian.Uint32(size[:])
		if err != nil || length > maxMessage {
			return nil, fault.New(fault.Protocol, "image %q is damaged", filepath.Base(path))
		}
		message := make([]byte, length)
		if _, err := io.ReadFull(r, message); err != nil {
			return nil, fault.New(fault.Protocol, "image %q is truncated", filepath.Base(path))
		}
		messages = append(messages, message)
	}
}

func imageHead(number uint32) []byte {
	head := binary.LittleEndian.AppendUint32(nil, commonMagic)
	return binary.LittleEndian.AppendUint32(head, number)
}

// writeImage replaces an image.
func writeImage(path string, number uint32, messages [][]byte) error {
	b := imageHead(number)
	for _, message := range messages {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(message)))
		b = append(b, message...)
	}
	return os.WriteFile(path, b, 0o644)
}

// inherit tells CRIU which of its descriptors is which object.
func inherit(objects []object) (fds []*rpc.InheritFd, files []*os.File) {
	for n, o := range objects {
		fds = append(fds, &rpc.InheritFd{
			Key: proto.String("/memfd:" + o.name), Fd: proto.Int32(int32(criu.FirstFile + n)),
		})
		files = append(files, o.file)
	}
	return fds, files
}
