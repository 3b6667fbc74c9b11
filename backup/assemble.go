package backup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/checkpoint-restore/go-criu/v7/crit/images/memfd"
	"github.com/checkpoint-restore/go-criu/v7/crit/images/mm"
	"github.com/checkpoint-restore/go-criu/v7/crit/images/vma"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/vzkit/vzkit/dump/track"
)

// Status bits of a mapping (criu/include/image.h).
const (
	vmaRegular     = 1 << 0
	vmaVsyscall    = 1 << 2
	vmaVDSO        = 1 << 3
	vmaFilePrivate = 1 << 6
	vmaAnonShared  = 1 << 8
	vmaAnonPrivate = 1 << 9
	vmaSysV        = 1 << 10
	vmaVvar        = 1 << 12
)

// assembler makes images of all memory out of what the tracker and CRIU took.
type assembler struct {
	k      *checkpoint
	ctx    context.Context
	stacks map[uint64]map[uint64]bool
	shared map[uint64]track.Object // by CRIU's number; without a space if the tracker has none of it
	images uint32                  // pages images so far
	pages  uint64                  // in them
}

// assemble completes the images while the container runs on.
func (k *checkpoint) assemble(ctx context.Context) error {
	if k.tracker != nil {
		if err := k.tracker.Close(); err != nil { // the container pays for it
			return err
		}
	}
	err := k.own.close()
	if err == nil {
		err = copyImages(k.room.images, k.room.partial)
	}
	if err == nil {
		err = k.own.addImages(k.room.images)
	}
	a := &assembler{k: k, ctx: ctx, shared: map[uint64]track.Object{}}
	if err == nil {
		a.stacks, err = stackPages(k.room.images)
	}
	if err == nil {
		err = a.all()
	}
	k.report.MemoryPages = a.pages
	return noSpace(err)
}

func (a *assembler) all() error {
	if err := a.listObjects(); err != nil {
		return err
	}
	processes, err := numbers(a.k.room.images, "mm-")
	if err != nil {
		return err
	}
	for _, pid := range processes {
		if err := a.process(pid); err != nil {
			return fmt.Errorf("memory of process %d: %w", pid, err)
		}
	}
	for number, o := range a.shared {
		pieces := a.stored(nil, o.Space, 0, o.Size, flagPresent)
		if err := a.write(owner{true, number}, o.Space, pieces); err != nil {
			return fmt.Errorf("shared memory %d: %w", number, err)
		}
	}
	return nil
}

// listObjects finds the shared memory objects that CRIU looks for when it
// restores, also those without pages: memfds, what the images of processes
// name, System V's, and what CRIU took.
func (a *assembler) listObjects() error {
	for who := range a.k.own.owners {
		if who.shared {
			a.shared[who.id] = track.Object{}
		}
	}
	err := a.each("memfd.img", &memfd.MemfdInodeEntry{}, func(m proto.Message) {
		a.object(uint64(m.(*memfd.MemfdInodeEntry).GetShmid()))
	})
	if err != nil {
		return err
	}
	segments, err := segments(a.k.room.images)
	for _, id := range segments {
		a.shared[id] = track.Object{}
	}
	return err
}

// each decodes an image that need not be there.
func (a *assembler) each(name string, kind proto.Message, do func(proto.Message)) error {
	entries, err := decode(filepath.Join(a.k.room.images, name), kind)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, m := range entries {
		do(m)
	}
	return err
}

// object notes an object by CRIU's number, which is its inode's, of a memfd
// the low half.
func (a *assembler) object(number uint64) {
	a.shared[number] = track.Object{}
	for _, o := range a.k.layout.Objects {
		if o.Inode == number || uint64(uint32(o.Inode)) == number {
			a.shared[number] = o
		}
	}
}

// process writes the memory of a process.
func (a *assembler) process(pid uint64) error {
	entries, err := decode(filepath.Join(a.k.room.images, fmt.Sprintf("mm-%d.img", pid)), &mm.MmEntry{})
	if err != nil {
		return err
	}
	if len(entries) != 1 {
		return fmt.Errorf("image has %d entries", len(entries))
	}
	vmas := entries[0].(*mm.MmEntry).GetVmas()
	for _, v := range vmas {
		if _, known := a.shared[v.GetShmid()]; v.GetStatus()&vmaAnonShared != 0 && v.GetStatus()&vmaSysV == 0 && !known {
			if _, known = a.shared[uint64(uint32(v.GetShmid()))]; !known {
				a.object(v.GetShmid())
			}
		}
	}
	space, ranges := a.layoutOf(pid)
	return a.write(owner{false, pid}, space, a.tracked(vmas, space, ranges, a.stacks[pid]))
}

func (a *assembler) layoutOf(pid uint64) (space uint64, ranges []track.Range) {
	for _, p := range a.k.layout.Processes {
		if uint64(p.VPID) == pid {
			return p.Space, p.Ranges
		}
	}
	return 0, nil
}

// tracked lists what the tracker took of a process's private mappings.
func (a *assembler) tracked(vmas []*vma.VmaEntry, space uint64, ranges []track.Range, stacks map[uint64]bool) (pieces []piece) {
	for _, v := range vmas {
		if v.GetStatus()&vmaRegular == 0 || v.GetStatus()&(vmaAnonPrivate|vmaFilePrivate) == 0 {
			continue
		}
		for len(ranges) > 0 && ranges[0].End <= v.GetStart() {
			ranges = ranges[1:]
		}
		flags := uint32(flagPresent)
		if lazy(v) {
			flags |= flagLazy
		}
		for i := 0; i < len(ranges) && ranges[i].Start < v.GetEnd(); i++ {
			start, end := max(ranges[i].Start, v.GetStart()), min(ranges[i].End, v.GetEnd())
			pieces = a.stored(pieces, space, start, end, flags)
		}
	}
	return withoutLazy(pieces, stacks)
}

// lazy is CRIU's vma_entry_can_be_lazy.
func lazy(v *vma.VmaEntry) bool {
	const want = unix.MAP_ANONYMOUS | unix.MAP_PRIVATE
	return v.GetFlags()&(want|unix.MAP_LOCKED|unix.MAP_HUGETLB) == want && v.GetStatus()&(vmaVDSO|vmaVvar|vmaVsyscall) == 0
}

// withoutLazy takes the flag off pages.
func withoutLazy(pieces []piece, at map[uint64]bool) []piece {
	for address := range at {
		i, found := slices.BinarySearchFunc(pieces, address, func(p piece, at uint64) int {
			switch {
			case p.end() <= at:
				return -1
			case p.address > at:
				return 1
			}
			return 0
		})
		if !found || pieces[i].flags&flagLazy == 0 {
			continue
		}
		whole := pieces[i]
		before := whole.upTo(address)
		stack, after := whole.from(address).upTo(address+track.PageSize), whole.from(address+track.PageSize)
		stack.flags &^= flagLazy
		parts := slices.DeleteFunc([]piece{before, stack, after}, func(p piece) bool { return p.pages == 0 })
		pieces = slices.Replace(pieces, i, i+1, parts...)
	}
	return pieces
}

// upTo and from are the parts of a piece before and from an address.
func (p piece) upTo(address uint64) piece {
	if address < p.end() {
		p.pages = (max(address, p.address) - p.address) / track.PageSize
	}
	return p
}

func (p piece) from(address uint64) piece {
	skip := (min(max(address, p.address), p.end()) - p.address) / track.PageSize
	p.address, p.pages = p.address+skip*track.PageSize, p.pages-skip
	if !p.stored {
		p.at += int64(skip) * track.PageSize
	}
	return p
}

// stored appends what the store has of a space between two addresses.
func (a *assembler) stored(pieces []piece, space, start, end uint64, flags uint32) []piece {
	if space == 0 {
		return pieces
	}
	for r := range a.k.room.memory.Runs(space, start, end, 1) {
		pieces = append(pieces, piece{address: r.Address, pages: uint64(r.Count), flags: flags, stored: true})
	}
	return pieces
}

// merge joins what the tracker took with what CRIU took and the tracker did
// not, by address, as CRIU reads it.
func merge(tracked, own []piece) []piece {
	all := slices.Clone(tracked)
	for _, p := range own {
		i, _ := slices.BinarySearchFunc(tracked, p.address, func(t piece, at uint64) int {
			if t.end() <= at {
				return -1
			}
			return 1
		})
		for ; i < len(tracked) && tracked[i].address < p.end(); i++ {
			all = append(all, p.upTo(tracked[i].address))
			p = p.from(tracked[i].end())
		}
		all = append(all, p)
	}
	all = slices.DeleteFunc(all, func(p piece) bool { return p.pages == 0 })
	slices.SortFunc(all, func(a, b piece) int {
		if a.address < b.address {
			return -1
		}
		return 1
	})
	return all
}
