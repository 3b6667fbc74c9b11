package watch

import (
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
)

// tracepoint is where requests end: block_rq_complete(struct request *rq,
// blk_status_t error, unsigned int nr_bytes).
const tracepoint = "block_rq_complete"

// mostWords is how many words one request may mark, 256 MiB of blocks of 4 KiB.
// The verifier goes through the loop as often. File systems discard by block
// groups, which are not larger; what is larger passes for lost.
const mostWords = 1024

// sectorShift is of the unit in which the kernel counts (linux/blk_types.h).
const sectorShift = 9

// opMask is REQ_OP_MASK, the part of a request's flags that says what it does;
// REQ_OP_READ is 0.
const opMask = 0xff

// offsets are where in its structures the kernel has what the program reads.
type offsets struct{ queue, disk, major, minor, flags, sector int16 }

// findOffsets looks them up in the running kernel's own description of its
// types.
func findOffsets() (o offsets, err error) {
	kernel, err := btf.LoadKernelSpec()
	if err != nil {
		return o, err
	}
	for _, f := range []struct {
		in, name string
		size     int
		at       *int16
	}{
		{"request", "q", 8, &o.queue}, {"request_queue", "disk", 8, &o.disk},
		{"gendisk", "major", 4, &o.major}, {"gendisk", "first_minor", 4, &o.minor},
		{"request", "cmd_flags", 4, &o.flags}, {"request", "__sector", 8, &o.sector},
	} {
		if *f.at, err = offset(kernel, f.in, f.name, f.size); err != nil {
			return o, err
		}
	}
	return o, nil
}

// offset is that of a member of so many bytes.
func offset(kernel *btf.Spec, in, name string, size int) (int16, error) {
	var s *btf.Struct
	if err := kernel.TypeByName(in, &s); err != nil {
		return 0, fmt.Errorf("struct %s: %w", in, err)
	}
	for _, m := range s.Members {
		if m.Name != name {
			continue
		}
		n, err := btf.Sizeof(m.Type)
		if err != nil || n != size || m.Offset%8 != 0 || m.BitfieldSize != 0 || m.Offset.Bytes() > 1<<15-1 {
			return 0, fmt.Errorf("member %s of struct %s is not as expected", name, in)
		}
		return int16(m.Offset.Bytes()), nil
	}
	return 0, fmt.Errorf("struct %s has no %s", in, name)
}

// Registers of the program, and what it has on the stack.
const (
	request, first, last, count = asm.R6, asm.R7, asm.R8, asm.R9 // kept over calls
	word, mask                  = asm.R2, asm.R3

	keyAt, maskAt = -4, -16
)

// program marks in the bits the blocks of each request of the device that is no
// read. The word after the last is not 0 once there was a request that could
// not be marked.
func program(o offsets, d Device, bits *ebpf.Map, words uint32, shift uint) asm.Instructions {
	return slices.Concat(
		isWrite(o, d),
		itsBlocks(o, shift),
		maskOfWord(),
		lookup(bits),
		asm.Instructions{
			asm.JEq.Imm(asm.R0, 0, "lost"),
			asm.LoadMem(mask, asm.RFP, maskAt, asm.DWord),
			or(asm.R0, mask),
			asm.RSh.Imm(first, 6),
			asm.Add.Imm(first, 1),
			asm.LSh.Imm(first, 6), // of the next word
			asm.JGT.Reg(first, last, "exit"),
			asm.Add.Imm(count, 1),
			asm.JLT.Imm(count, mostWords, "word"),
			asm.Mov.Imm(word, int32(words)).WithSymbol("lost"),
		},
		lookup(bits),
		asm.Instructions{
			asm.JEq.Imm(asm.R0, 0, "exit"),
			asm.Mov.Imm(mask, 1),
			or(asm.R0, mask),
			asm.Mov.Imm(asm.R0, 0).WithSymbol("exit"),
			asm.Return(),
		},
	)
}

// isWrite goes on with a request of the device that is no read; last is then its
// length in bytes, not 0 as that of a flush.
func isWrite(o offsets, d Device) asm.Instructions {
	return asm.Instructions{
		asm.LoadMem(request, asm.R1, 0, asm.DWord),
		asm.LoadMem(last, asm.R1, 16, asm.DWord),
		asm.LoadMem(asm.R2, request, o.queue, asm.DWord),
		asm.LoadMem(asm.R2, asm.R2, o.disk, asm.DWord),
		asm.LoadMem(asm.R3, asm.R2, o.major, asm.Word),
		asm.JNE.Imm(asm.R3, int32(d.Major), "exit"),
		asm.LoadMem(asm.R3, asm.R2, o.minor, asm.Word),
		asm.JNE.Imm(asm.R3, int32(d.Minor), "exit"),
		asm.LoadMem(asm.R2, request, o.flags, asm.Word),
		asm.And.Imm(asm.R2, opMask),
		asm.JEq.Imm(asm.R2, 0, "exit"),
		asm.Mov.Reg32(last, last),
		asm.JEq.Imm(last, 0, "exit"),
	}
}

// itsBlocks makes of its place and length its first and last block.
func itsBlocks(o offsets, shift uint) asm.Instructions {
	return asm.Instructions{
		asm.LoadMem(first, request, o.sector, asm.DWord),
		asm.Add.Imm(last, 1<<sectorShift-1),
		asm.RSh.Imm(last, sectorShift),
		asm.Add.Reg(last, first),
		asm.Sub.Imm(last, 1),
		asm.RSh.Imm(first, int32(shift-sectorShift)),
		asm.RSh.Imm(last, int32(shift-sectorShift)),
		asm.Mov.Imm(count, 0),
	}
}

// maskOfWord puts on the stack the bits from first to last, as far as they are
// in the word of first, whose number it leaves in word.
func maskOfWord() asm.Instructions {
	return asm.Instructions{
		asm.LoadImm(mask, -1, asm.DWord).WithSymbol("word"),
		asm.Mov.Reg(word, first),
		asm.And.Imm(word, 63),
		asm.LSh.Reg(mask, word),
		asm.Mov.Reg(word, first),
		asm.RSh.Imm(word, 6),
		asm.Mov.Reg(asm.R4, last),
		asm.RSh.Imm(asm.R4, 6),
		asm.JNE.Reg(word, asm.R4, "whole"),
		asm.Mov.Reg(asm.R4, last),
		asm.And.Imm(asm.R4, 63),
		asm.Mov.Imm(asm.R5, 63),
		asm.Sub.Reg(asm.R5, asm.R4),
		asm.LoadImm(asm.R4, -1, asm.DWord),
		asm.RSh.Reg(asm.R4, asm.R5),
		asm.And.Reg(mask, asm.R4),
		asm.StoreMem(asm.RFP, maskAt, mask, asm.DWord).WithSymbol("whole"),
	}
}

// lookup has in R0 where the word with that number is, or 0.
func lookup(bits *ebpf.Map) asm.Instructions {
	return asm.Instructions{
		asm.StoreMem(asm.RFP, keyAt, word, asm.Word),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, keyAt),
		asm.LoadMapPtr(asm.R1, bits.FD()),
		asm.FnMapLookupElem.Call(),
	}
}

// or sets bits of src where dst points to. The constant says so once more:
// ebpf v0.22 writes that of an instruction from before it has put it there, and
// so would add.
func or(dst, src asm.Register) asm.Instruction {
	ins := asm.OrAtomic.Mem(dst, src, asm.DWord, 0)
	ins.Constant = int64(asm.Or)
	return ins
}
