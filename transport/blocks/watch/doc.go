// Package watch tells which blocks of one block device were written since it
// was asked last: a small BPF program at the tracepoint block_rq_complete sets
// a bit for each block of every request of that device that has ended and was
// no read; writes, discards and zeroes are the same to it.
//
// # What it promises
//
// The tracepoint comes before whoever waits for the request hears of its end.
// So once a sync has returned, what it wrote has its bits. A request that has
// not ended when the bits are taken sets them when it does: who reads a block
// after Take reads it again after the next one, if it was still being written.
//
// The kernel does not run the program for an event that interrupts it on the
// same processor, but counts it. Then, and after a request that is larger than
// the program can mark, Take says that it has lost something.
//
// What changes the device's blocks without a request to it, such as a write to
// the file below a loop device, is not seen.
//
// # What it needs
//
// Linux 5.17 or so: BPF with a description of the kernel's types
// (/sys/kernel/btf/vmlinux), from which come the places of what is read, and
// atomic operations; and CAP_BPF with CAP_PERFMON, or CAP_SYS_ADMIN. Open tries,
// and its error says what was missing. A bit takes a bit; an event of another
// device costs the time of a few loads.
//
// The program goes to the kernel under the MIT licence or the GPL, for the
// kernel shows its types to no other.
//
// Sources: bpf(2), include/trace/events/block.h, block/blk-mq.c and
// kernel/trace/bpf_trace.c of Linux.
package watch
