package preload

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"runtime"
	"unsafe"
)

// hookAddresses is where the code of the hooks is in this program, in the
// order of hooks. The assembler fills it in.
var hookAddresses [3]uintptr

// hooks are the functions that the library takes the place of, by the index of
// their code.
var hooks = []struct {
	name string
	code int
}{{"ioctl", 0}, {"lseek", 1}, {"lseek64", 1}, {"socket", 2}}

// imports are what the hooks need of the C library, in the order of the
// IMPORT_… in assembly.
var imports = []string{"syscall", "__errno_location"}

// The library in memory, and in its file: headers and tables, one page of
// code, and what the dynamic linker writes to, in a segment of its own at a
// multiple of the greatest page size there is. The hooks know the distance
// from the code to the imports.
const (
	codeAt    = 0x1000
	codeSize  = 0x1000
	hookSize  = 0x200 // at most
	importsAt = codeAt + 0xf000
	dynamicAt = importsAt + 0x100
	endAt     = dynamicAt + 0x100
)

// machine is what an architecture calls itself, and its relocation that puts a
// symbol's address into a word (its psABI's GLOB_DAT).
var machine = map[string]struct {
	elf elf.Machine
	rel uint64
}{
	"amd64": {elf.EM_X86_64, uint64(elf.R_X86_64_GLOB_DAT)},
	"arm64": {elf.EM_AARCH64, uint64(elf.R_AARCH64_GLOB_DAT)},
}[runtime.GOARCH]

// hookCode is the code of a hook, and beyond its end whatever follows it.
func hookCode(index int) []byte {
	return unsafe.Slice((*byte)(*(*unsafe.Pointer)(unsafe.Pointer(&hookAddresses[index]))), hookSize)
}

// library is the shared object, see elf(5) and the System V gABI's chapter 5.
func library() []byte {
	image := make([]byte, endAt)
	for i := range hookAddresses {
		copy(image[codeAt+i*hookSize:], hookCode(i))
	}
	t := newTables()
	copy(image[t.at:], t.bytes())
	copy(image[dynamicAt:], encode(t.dynamic()))
	copy(image, encode(fileHeader(), segments()))
	return image
}

func fileHeader() elf.Header64 {
	h := elf.Header64{
		Type: uint16(elf.ET_DYN), Machine: uint16(machine.elf), Version: uint32(elf.EV_CURRENT),
		Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: uint16(len(segments())),
	}
	copy(h.Ident[:], elf.ELFMAG+string([]byte{byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)}))
	return h
}

func segments() []elf.Prog64 {
	const page = 0x10000
	segment := func(kind elf.ProgType, flags elf.ProgFlag, from, to, align uint64) elf.Prog64 {
		return elf.Prog64{
			Type: uint32(kind), Flags: uint32(flags), Off: from, Vaddr: from, Paddr: from, Filesz: to - from, Memsz: to - from, Align: align,
		}
	}
	return []elf.Prog64{
		segment(elf.PT_LOAD, elf.PF_R|elf.PF_X, 0, codeAt+codeSize, page),
		segment(elf.PT_LOAD, elf.PF_R|elf.PF_W, importsAt, endAt, page),
		segment(elf.PT_DYNAMIC, elf.PF_R|elf.PF_W, dynamicAt, endAt, 8),
		segment(elf.PT_GNU_STACK, elf.PF_R|elf.PF_W, 0, 0, 16), // else stacks become executable
	}
}

// tables are what the dynamic linker looks symbols up in.
type tables struct {
	at                     uint64
	symbols, relocs, lists []byte
	names                  []byte
}

func newTables() *tables {
	t := &tables{at: 0x400, names: []byte{0}}
	t.symbols = encode(elf.Sym64{})
	for i, name := range imports {
		t.add(name, elf.Sym64{})
		t.relocs = append(t.relocs, encode(elf.Rela64{Off: importsAt + 8*uint64(i), Info: uint64(i+1)<<32 | machine.rel})...)
	}
	for _, h := range hooks {
		t.add(h.name, elf.Sym64{Shndx: 1, Value: codeAt + uint64(h.code)*hookSize, Size: hookSize}) // any section but none
	}
	// One bucket, which lists all symbols: number of buckets, of symbols,
	// the first, and each one's next.
	n := uint32(1 + len(imports) + len(hooks))
	t.lists = encode([]uint32{1, n, 1, 0})
	for i := uint32(1); i < n; i++ {
		t.lists = append(t.lists, encode((i+1)%n)...)
	}
	return t
}

func (t *tables) add(name string, s elf.Sym64) {
	s.Name, s.Info = uint32(len(t.names)), elf.ST_INFO(elf.STB_GLOBAL, elf.STT_FUNC)
	t.symbols = append(t.symbols, encode(s)...)
	t.names = append(append(t.names, name...), 0)
}

// bytes are the tables in the order of their addresses.
func (t *tables) bytes() []byte {
	return bytes.Join([][]byte{t.symbols, t.relocs, t.lists, t.names}, nil)
}

func (t *tables) dynamic() []elf.Dyn64 {
	relocs := t.at + uint64(len(t.symbols))
	lists := relocs + uint64(len(t.relocs))
	return []elf.Dyn64{
		{Tag: int64(elf.DT_SYMTAB), Val: t.at}, {Tag: int64(elf.DT_SYMENT), Val: elf.Sym64Size},
		{Tag: int64(elf.DT_RELA), Val: relocs}, {Tag: int64(elf.DT_RELASZ), Val: uint64(len(t.relocs))}, {Tag: int64(elf.DT_RELAENT), Val: 24},
		{Tag: int64(elf.DT_HASH), Val: lists},
		{Tag: int64(elf.DT_STRTAB), Val: lists + uint64(len(t.lists))}, {Tag: int64(elf.DT_STRSZ), Val: uint64(len(t.names))},
		{Tag: int64(elf.DT_NULL)},
	}
}

// encode is the values as they lie in memory. They are of fixed size.
func encode(values ...any) []byte {
	var b bytes.Buffer
	for _, v := range values {
		_ = binary.Write(&b, binary.LittleEndian, v)
	}
	return b.Bytes()
}
