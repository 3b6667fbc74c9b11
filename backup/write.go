package backup

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/checkpoint-restore/go-criu/v7/crit"
	"github.com/checkpoint-restore/go-criu/v7/crit/images/pagemap"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/vzkit/vzkit/dump"
	"github.com/vzkit/vzkit/restore/memory"
)

// maxEntry is how many pages one entry of a pagemap has at most: CRIU reads
// them with one system call.
const maxEntry = 1 << 18

// write writes the images of an owner's memory: what the tracker took, and
// what CRIU took beside it.
func (a *assembler) write(who owner, space uint64, tracked []piece) error {
	a.images++
	pages := filepath.Join(a.k.room.partial, fmt.Sprintf("pages-%d.img", a.images))
	o := a.k.own.owners[who]
	if o == nil {
		o = &own{}
	}
	pieces := merge(tracked, o.pieces)
	if err := a.writePages(pages, o, space, pieces, len(tracked) == 0); err != nil {
		return err
	}
	name := fmt.Sprintf("pagemap-%d.img", who.id)
	if who.shared {
		name = fmt.Sprintf("pagemap-shmem-%d.img", who.id)
	}
	return a.writeMap(filepath.Join(a.k.room.partial, name), pieces)
}

// writePages writes the content of pieces, one after the other. If it is all
// CRIU's, it is on the disk already.
func (a *assembler) writePages(path string, o *own, space uint64, pieces []piece, ready bool) error {
	if ready && len(pieces) > 0 && filepath.Dir(o.file) == a.k.room.partial && slices.Equal(pieces, o.pieces) {
		return os.Rename(o.file, path)
	}
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	w := &pagesWriter{out: out}
	err = a.copyPieces(w, o, space, pieces)
	if err == nil {
		err = out.Truncate(w.at)
	}
	if cerr := out.Close(); err == nil {
		err = cerr
	}
	if err == nil && filepath.Dir(o.file) == a.k.room.partial && len(o.pieces) > 0 {
		err = os.Remove(o.file)
	}
	return err
}

func (a *assembler) copyPieces(w *pagesWriter, o *own, space uint64, pieces []piece) (err error) {
	var in *os.File
	if len(o.pieces) > 0 {
		if in, err = os.Open(o.file); err != nil {
			return err
		}
		defer in.Close()
	}
	buf := make([]byte, 64*dump.PageSize)
	for _, p := range pieces {
		if err := a.ctx.Err(); err != nil {
			return err
		}
		if p.stored {
			err = a.copyStored(w, space, p)
		} else {
			err = copyOwn(w, in, p, buf)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// copyStored copies a piece out of the store.
func (a *assembler) copyStored(w *pagesWriter, space uint64, p piece) error {
	data, err := a.k.room.memory.View(space, memory.Run{Address: p.address, Count: uint32(p.pages)})
	if err != nil {
		return err
	}
	return w.write(data)
}

// copyOwn copies a piece out of an owner's file.
func copyOwn(w *pagesWriter, in *os.File, p piece, buf []byte) error {
	for at, left := p.at, int64(p.pages)*dump.PageSize; left > 0; {
		n, err := in.ReadAt(buf[:min(left, int64(len(buf)))], at)
		if int64(n) < min(left, int64(len(buf))) {
			return fmt.Errorf("read pages: %w", err)
		}
		if err := w.write(buf[:n]); err != nil {
			return err
		}
		at, left = at+int64(n), left-int64(n)
	}
	return nil
}

// pagesWriter writes pages one after the other. Those that are zero become
// holes.
type pagesWriter struct {
	out *os.File
	at  int64
}

var zeroPage [dump.PageSize]byte

func (w *pagesWriter) write(data []byte) error {
	for len(data) > 0 {
		n := 0
		for n < len(data) && !bytes.Equal(data[n:n+dump.PageSize], zeroPage[:]) {
			n += dump.PageSize
		}
		if n > 0 {
			if _, err := w.out.WriteAt(data[:n], w.at); err != nil {
				return err
			}
		} else {
			n = dump.PageSize
		}
		w.at += int64(n)
		data = data[n:]
	}
	return nil
}

// writeMap writes the image that says which pages the pages image has.
func (a *assembler) writeMap(path string, pieces []piece) error {
	image := &crit.CriuImage{Magic: "PAGEMAP", EntryType: &pagemap.PagemapEntry{}}
	add := func(m proto.Message) { image.Entries = append(image.Entries, &crit.CriuEntry{Message: m}) }
	add(&pagemap.PagemapHead{PagesId: proto.Uint32(a.images)})
	for i := 0; i < len(pieces); {
		p := pieces[i]
		for i++; i < len(pieces) && pieces[i].address == p.end() && pieces[i].flags == p.flags && p.pages+pieces[i].pages <= maxEntry; i++ {
			p.pages += pieces[i].pages
		}
		a.pages += p.pages
		add(newEntry(p))
	}
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if err := crit.New(nil, out, "", false, false).Encode(image); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}

// fieldPages is the field of a pagemap's entry that has the number of pages
// since CRIU 4.2 (images/pagemap.proto). go-criu's message does not have it yet.
const fieldPages = 5

// newEntry makes an entry that every CRIU can read.
func newEntry(p piece) *pagemap.PagemapEntry {
	e := &pagemap.PagemapEntry{Vaddr: proto.Uint64(p.address), NrPages: proto.Uint32(uint32(p.pages)), Flags: proto.Uint32(p.flags)}
	field := protowire.AppendTag(nil, fieldPages, protowire.VarintType)
	e.ProtoReflect().SetUnknown(protowire.AppendVarint(field, p.pages))
	return e
}

// pagesOf is how many pages an entry has, whichever CRIU wrote it.
func pagesOf(e *pagemap.PagemapEntry) uint64 {
	for rest := []byte(e.ProtoReflect().GetUnknown()); len(rest) > 0; {
		number, typ, n := protowire.ConsumeField(rest)
		if n < 0 {
			break
		}
		if _, _, tag := protowire.ConsumeTag(rest); number == fieldPages && typ == protowire.VarintType {
			pages, _ := protowire.ConsumeVarint(rest[tag:])
			return pages
		}
		rest = rest[n:]
	}
	return uint64(e.GetNrPages())
}
