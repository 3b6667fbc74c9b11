package restore

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"

	"github.com/checkpoint-restore/go-criu/v7/crit/images/pagemap"
	"google.golang.org/protobuf/proto"

	"github.com/vzkit/vzkit/internal/fault"
)

// The flags of a pagemap's entries (criu/include/pagemap.h).
const (
	pageLazy    = 1 << 1 // PE_LAZY: may be filled in after the restore
	pagePresent = 1 << 2 // PE_PRESENT: in the pages image
)

// dropLazy takes out of CRIU's pagemaps what its lazy dump has only described:
// that memory came another way, and CRIU is not to look for it.
func (s *Store) dropLazy() error {
	maps, err := filepath.Glob(filepath.Join(s.dir, "pagemap-*.img"))
	if err != nil {
		return err
	}
	for _, path := range maps {
		text, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("read pagemap: %w", err)
		}
		kept, err := withoutLazy(text)
		if err != nil {
			return fault.New(fault.Protocol, "image %q: %w", filepath.Base(path), err)
		}
		if err := os.WriteFile(path, kept, 0o644); err != nil {
			return s.full(err)
		}
	}
	return nil
}

// withoutLazy is a pagemap without the entries that have no content. It is two
// magic numbers and then messages, each with its size in 32 bits before it: a
// head and the entries (criu.org/Images).
func withoutLazy(text []byte) ([]byte, error) {
	const magic, size = 8, 4
	if len(text) < magic {
		return nil, fmt.Errorf("%d bytes are no pagemap", len(text))
	}
	kept := bytes.Clone(text[:magic])
	for at, first := magic, true; at < len(text); first = false {
		if len(text)-at < size {
			return nil, fmt.Errorf("cut off at %d", at)
		}
		n := int(binary.LittleEndian.Uint32(text[at:]))
		if n > len(text)-at-size {
			return nil, fmt.Errorf("cut off at %d", at)
		}
		message := text[at : at+size+n]
		var e pagemap.PagemapEntry
		if !first {
			if err := proto.Unmarshal(message[size:], &e); err != nil {
				return nil, fmt.Errorf("entry at %d: %w", at, err)
			}
		}
		if first || e.GetFlags()&(pageLazy|pagePresent) != pageLazy {
			kept = append(kept, message...)
		}
		at += size + n
	}
	return kept, nil
}
