package watch

import (
	"errors"
	"fmt"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Device is a whole block device by its numbers.
type Device struct{ Major, Minor uint32 }

// Watch is the watch over one device.
type Watch struct {
	words  []uint64 // mapped; the last one is not 0 if something was lost
	mapped []byte
	bits   *ebpf.Map
	prog   *ebpf.Program
	link   link.Link
	missed uint64 // events so far that the kernel did not tell the program
}

// Open begins to watch a device of so many bytes, with a bit for each block of
// 1<<shift bytes. An error says why this kernel cannot.
func Open(d Device, size int64, shift uint) (*Watch, error) {
	words := uint64(size+63<<shift) >> shift >> 6
	if size <= 0 || shift < 12 || words >= 1<<28 {
		return nil, fmt.Errorf("watch %d bytes by blocks of %d: out of range", size, 1<<shift)
	}
	w := &Watch{}
	if err := w.open(d, uint32(words), shift); err != nil {
		return nil, errors.Join(fmt.Errorf("watch device %d:%d: %w", d.Major, d.Minor, err), w.Close())
	}
	return w, nil
}

func (w *Watch) open(d Device, words uint32, shift uint) error {
	at, err := findOffsets()
	if err != nil {
		return err
	}
	w.bits, err = ebpf.NewMap(&ebpf.MapSpec{
		Name: "vz_blocks", Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: words + 1, Flags: unix.BPF_F_MMAPABLE,
	})
	if err != nil {
		return err
	}
	w.prog, err = ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "vz_blocks", Type: ebpf.Tracing, AttachType: ebpf.AttachTraceRawTp, AttachTo: tracepoint,
		Instructions: program(at, d, w.bits, words, shift), License: "Dual MIT/GPL",
	})
	if err != nil {
		return err
	}
	if w.mapped, err = unix.Mmap(w.bits.FD(), 0, int(words+1)*8, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return fmt.Errorf("map bits: %w", err)
	}
	w.words = unsafe.Slice((*uint64)(unsafe.Pointer(&w.mapped[0])), words+1)
	if _, err := w.misses(); err != nil {
		return err
	}
	w.link, err = link.AttachTracing(link.TracingOptions{Program: w.prog})
	return err
}

// Take calls do with each word of bits that are set, 64 blocks from block
// 64*word on, and clears them. If it returns true, more may have been written
// than it said.
func (w *Watch) Take(do func(word int64, set uint64)) (lost bool, err error) {
	last := len(w.words) - 1
	for i := range w.words[:last] {
		if atomic.LoadUint64(&w.words[i]) != 0 {
			do(int64(i), atomic.SwapUint64(&w.words[i], 0))
		}
	}
	lost = atomic.SwapUint64(&w.words[last], 0) != 0
	missed, err := w.misses()
	return lost || missed, err
}

// misses tells whether the kernel has left out events since it was asked last.
func (w *Watch) misses() (bool, error) {
	s, err := w.prog.Stats()
	if err != nil {
		return false, fmt.Errorf("read program's counters: %w", err)
	}
	before := w.missed
	w.missed = s.RecursionMisses
	return w.missed != before, nil
}

// Close ends the watch. Closing twice is fine.
func (w *Watch) Close() error {
	var errs []error
	if w.link != nil {
		errs = append(errs, w.link.Close())
	}
	if w.mapped != nil {
		errs = append(errs, unix.Munmap(w.mapped))
	}
	if w.prog != nil {
		errs = append(errs, w.prog.Close())
	}
	if w.bits != nil {
		errs = append(errs, w.bits.Close())
	}
	*w = Watch{}
	return errors.Join(errs...)
}
