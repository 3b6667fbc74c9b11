package backup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/checkpoint-restore/go-criu/v7/crit/images/pagemap"

	"github.com/vzkit/vzkit/dump"
)

// Flags of runs in a pagemap (criu/include/pagemap.h).
const (
	flagLazy    = 1 << 1 // PE_LAZY: may come after the process runs
	flagPresent = 1 << 2 // PE_PRESENT: content is in the pages image
)

// owner is whose pages they are: a process's by its pid in the container, or a
// shared memory object's by CRIU's number for it.
type owner struct {
	shared bool
	id     uint64
}

// piece is a run of pages of one owner.
type piece struct {
	address uint64
	pages   uint64
	flags   uint32
	stored  bool  // in the store; otherwise in the owner's file
	at      int64 // there
}

func (p piece) end() uint64 { return p.address + p.pages*dump.PageSize }

// own is what CRIU took of an owner's memory.
type own struct {
	file   string
	pieces []piece
	size   int64
}

// ownPages takes the pages that CRIU takes, each owner's into a file. CRIU
// dumps one after the other, so only one is open.
type ownPages struct {
	dir    string
	owners map[owner]*own
	last   *own
	file   *os.File // of last
}

// Pages takes a run. What CRIU does not send content for is the tracker's.
func (o *ownPages) Pages(r dump.Run) error {
	who := owner{r.Space == dump.SpaceShmem, r.ID}
	to := o.owners[who]
	if to == nil {
		to = &own{file: filepath.Join(o.dir, fmt.Sprintf("own-%d", len(o.owners)))}
		o.owners[who] = to
	}
	if r.Flags&flagPresent == 0 {
		return nil
	}
	if to != o.last {
		if err := o.open(to); err != nil {
			return err
		}
	}
	if _, err := o.file.Write(r.Data); err != nil {
		return err
	}
	to.add(piece{address: r.Address, pages: uint64(r.Count), flags: r.Flags, at: to.size})
	to.size += int64(len(r.Data))
	return nil
}

func (o *ownPages) open(to *own) (err error) {
	if err := o.close(); err != nil {
		return err
	}
	o.last = to
	o.file, err = os.OpenFile(to.file, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	return err
}

func (o *ownPages) close() (err error) {
	if o.file != nil {
		err = o.file.Close()
	}
	o.last, o.file = nil, nil
	return err
}

// add notes a piece, as one with the one before where they join.
func (o *own) add(p piece) {
	if n := len(o.pieces); n > 0 {
		last := &o.pieces[n-1]
		if last.end() == p.address && last.flags == p.flags && last.at+int64(last.pages)*dump.PageSize == p.at {
			last.pages += p.pages
			return
		}
	}
	o.pieces = append(o.pieces, p)
}

// Image leaves images where they are: they are copied when the container runs.
func (o *ownPages) Image(string, []byte, bool) error { return nil }

// addImages adds what CRIU wrote into images itself, in a lazy dump.
func (o *ownPages) addImages(dir string) error {
	for _, kind := range []struct {
		prefix string
		shared bool
	}{{"pagemap-", false}, {"pagemap-shmem-", true}} {
		ids, err := numbers(dir, kind.prefix)
		if err != nil {
			return err
		}
		for _, id := range ids {
			if err := o.addImage(dir, fmt.Sprintf("%s%d.img", kind.prefix, id), owner{kind.shared, id}); err != nil {
				return err
			}
		}
	}
	return nil
}

func (o *ownPages) addImage(dir, name string, who owner) error {
	entries, err := decode(filepath.Join(dir, name), &pagemap.PagemapEntry{})
	if err != nil {
		return err
	}
	if len(entries) == 0 {
		return nil
	}
	head, ok := entries[0].(*pagemap.PagemapHead)
	if !ok || o.owners[who] != nil {
		return errors.New("image " + name + " is not as expected")
	}
	to := &own{file: filepath.Join(dir, fmt.Sprintf("pages-%d.img", head.GetPagesId()))}
	o.owners[who] = to
	for _, m := range entries[1:] {
		e, ok := m.(*pagemap.PagemapEntry)
		if !ok {
			return errors.New("image " + name + " is not as expected")
		}
		if e.GetFlags()&flagPresent == 0 {
			continue
		}
		pages := pagesOf(e)
		to.pieces = append(to.pieces, piece{address: e.GetVaddr(), pages: pages, flags: e.GetFlags(), at: to.size})
		to.size += int64(pages) * dump.PageSize
	}
	return nil
}
