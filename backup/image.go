package backup

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/checkpoint-restore/go-criu/v7/crit"
	core "github.com/checkpoint-restore/go-criu/v7/crit/images/criu-core"
	ipcshm "github.com/checkpoint-restore/go-criu/v7/crit/images/ipc-shm"
	"github.com/checkpoint-restore/go-criu/v7/crit/images/pstree"
	"google.golang.org/protobuf/proto"

	"github.com/vzkit/vzkit/dump"
)

// decode reads all messages of an image that CRIU has written.
func decode(path string, kind proto.Message) ([]proto.Message, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	image, err := crit.New(f, nil, "", false, true).Decode(kind)
	if err != nil {
		return nil, fmt.Errorf("read image %q: %w", filepath.Base(path), err)
	}
	all := make([]proto.Message, len(image.Entries))
	for i, e := range image.Entries {
		all[i] = e.Message
	}
	return all, nil
}

// numbers are those of the images called prefix, number, ".img".
func numbers(dir, prefix string) (all []uint64, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		name, isImage := strings.CutSuffix(e.Name(), ".img")
		digits, ours := strings.CutPrefix(name, prefix)
		if n, err := strconv.ParseUint(digits, 10, 64); err == nil && isImage && ours {
			all = append(all, n)
		}
	}
	return all, nil
}

// segments are the numbers of System V's shared memory segments. Their images
// are taken apart here because crit takes content to follow each entry, which
// CRIU has in the pages images.
func segments(dir string) (ids []uint64, err error) {
	paths, err := filepath.Glob(filepath.Join(dir, "ipcns-shm-*.img"))
	if err != nil || len(paths) == 0 {
		return nil, err
	}
	text, err := os.ReadFile(paths[0])
	if err != nil {
		return nil, err
	}
	const head = 8 // two magic numbers
	for text = text[min(head, len(text)):]; len(text) > 0; {
		var e ipcshm.IpcShmEntry
		size := uint64(len(text))
		if size >= 4 {
			size = uint64(binary.LittleEndian.Uint32(text))
		}
		if uint64(len(text)) < 4+size || proto.Unmarshal(text[4:4+size], &e) != nil || !e.GetInPagemaps() {
			return nil, fmt.Errorf("image %q is not as expected", filepath.Base(paths[0]))
		}
		ids, text = append(ids, uint64(e.GetDesc().GetId())), text[4+size:]
	}
	return ids, nil
}

// copyImages copies CRIU's images, without those of memory.
func copyImages(from, to string) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := e.Name()
		if filepath.Ext(name) != ".img" || strings.HasPrefix(name, "pages-") || strings.HasPrefix(name, "pagemap-") {
			continue
		}
		if err := copyFile(filepath.Join(from, name), filepath.Join(to, name)); err != nil {
			return fmt.Errorf("copy image: %w", err)
		}
	}
	return nil
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}

// stackPages are the pages that the stack pointers of each process's threads
// are in, by pid in the container. CRIU wants them there when it restores.
func stackPages(dir string) (map[uint64]map[uint64]bool, error) {
	tree, err := decode(filepath.Join(dir, "pstree.img"), &pstree.PstreeEntry{})
	if err != nil {
		return nil, err
	}
	all := map[uint64]map[uint64]bool{}
	for _, m := range tree {
		process := m.(*pstree.PstreeEntry)
		pages := map[uint64]bool{}
		for _, thread := range process.GetThreads() {
			sp, err := stackPointer(dir, thread)
			if err != nil {
				return nil, err
			}
			pages[sp&^(dump.PageSize-1)] = true
		}
		all[uint64(process.GetPid())] = pages
	}
	return all, nil
}

func stackPointer(dir string, thread uint32) (uint64, error) {
	entries, err := decode(filepath.Join(dir, fmt.Sprintf("core-%d.img", thread)), &core.CoreEntry{})
	if os.IsNotExist(err) || err == nil && len(entries) == 0 { // a zombie's
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	e := entries[0].(*core.CoreEntry)
	if arm := e.GetTiAarch64(); arm != nil {
		return arm.GetGpregs().GetSp(), nil
	}
	return e.GetThreadInfo().GetGpregs().GetSp(), nil
}
