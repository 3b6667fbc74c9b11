package transport

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"runtime"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/vzkit/vzkit/internal/fault"
)

func TestCutAtEveryByte(t *testing.T) {
	forEachCodec(t, func(t *testing.T, codec Codec) {
		frames := sample()
		borders := map[int]int{0: 0} // offset to number of whole frames
		for i := range frames {
			borders[len(encode(t, codec, frames[:i+1]))] = i + 1
		}
		wire := encode(t, codec, frames)
		whole := 0
		for cut := range wire {
			n, border := borders[cut]
			if border {
				whole = n
			}
			got, err := readAll(connOf(wire[:cut]))
			if !same(frames[:whole], got) {
				t.Fatalf("cut at %d: %d frames, want %d", cut, len(got), whole)
			}
			if border && err != io.EOF {
				t.Fatalf("cut at border %d: %v", cut, err)
			}
			if !border && (!errors.Is(err, io.ErrUnexpectedEOF) || fault.KindOf(err) != fault.Protocol) {
				t.Fatalf("cut at %d: %v", cut, err)
			}
		}
	})
}

func TestEveryFlippedByteIsNoticed(t *testing.T) {
	forEachCodec(t, func(t *testing.T, codec Codec) {
		frames := sample()
		wire := encode(t, codec, frames)
		for i := range wire {
			for _, flip := range []byte{0x01, 0x80, 0xff} {
				wire[i] ^= flip
				got, err := readAll(connOf(wire))
				if fault.KindOf(err) != fault.Protocol {
					t.Fatalf("byte %d ^ %#x: %v", i, flip, err)
				}
				if len(got) >= len(frames) || !same(frames[:len(got)], got) {
					t.Fatalf("byte %d ^ %#x: %d frames, some different", i, flip, len(got))
				}
				wire[i] ^= flip
			}
		}
	})
}

// forge is a frame with any header and a right checksum.
func forge(h header, payload []byte) []byte {
	if h.length == 0 {
		h.length = uint32(len(payload))
	}
	var head [headerSize]byte
	h.put(&head, [][]byte{payload})
	return append(head[:], payload...)
}

// packed is the encoded payload that claims to hold size plain bytes.
func packed(size uint32, b []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, size), b...)
}

func zstdOf(t testing.TB, plain []byte) []byte {
	t.Helper()
	e, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	return e.EncodeAll(plain, nil)
}

func lz4Of(t testing.TB, plain []byte) []byte {
	t.Helper()
	b, err := new(packer).pack(CodecLZ4, [][]byte{plain})
	if err != nil || b == nil {
		t.Fatalf("not packed: %v", err)
	}
	return b[plainLenSize:]
}

type hostileFrame struct {
	wire []byte
	want string // the error, or empty if a library words it
}

// hostile are frames whose checksum is right and whose content is not.
func hostile(t testing.TB) map[string]hostileFrame {
	zeros := make([]byte, MaxPayload)
	bomb := zstdOf(t, zeros)
	many := bytes.Repeat(bomb, 200)
	return map[string]hostileFrame{
		"unknown type":     {forge(header{kind: 77}, nil), "frame type 77: not known"},
		"reserved":         {forge(header{kind: TypeCommit, reserved: 0x100}, nil), "frame commit: reserved bytes 0x0100"},
		"unknown codec":    {forge(header{kind: TypePages, codec: 3}, nil), "frame pages: codec 3 not known"},
		"packed control":   {forge(header{kind: TypeOffer, codec: CodecLZ4}, nil), "frame offer: packed with lz4"},
		"packed entry":     {forge(header{kind: TypeFileEntry, codec: CodecZstd}, nil), "frame file-entry: packed with zstd"},
		"long plain":       {forge(header{kind: TypePages, length: MaxPayload + 1}, nil), "frame pages: 1048577 bytes exceed 1048576"},
		"longest plain":    {forge(header{kind: TypePages, length: 1<<32 - 1}, nil), "frame pages: 4294967295 bytes exceed 1048576"},
		"long control":     {forge(header{kind: TypeOffer, length: maxControl + 1}, nil), "frame offer: 65537 bytes exceed 65536"},
		"long packed":      {forge(header{kind: TypePages, codec: CodecZstd, length: maxEncoded + 1}, nil), "frame pages: 1114113 packed bytes exceed 1114112"},
		"no plain length":  {forge(header{kind: TypePages, codec: CodecZstd}, []byte{0, 0, 1}), "frame pages: plain length missing"},
		"plain length 0":   {forge(header{kind: TypePages, codec: CodecLZ4}, packed(0, nil)), "frame pages: plain length 0, limit 1048576"},
		"long plain LZ4":   {forge(header{kind: TypePages, codec: CodecLZ4}, packed(1<<32-1, lz4Of(t, zeros))), "frame pages: plain length 4294967295, limit 1048576"},
		"LZ4 too much":     {forge(header{kind: TypeImage, codec: CodecLZ4}, packed(999, lz4Of(t, zeros[:1000]))), ""},
		"LZ4 too little":   {forge(header{kind: TypeImage, codec: CodecLZ4}, packed(1001, lz4Of(t, zeros[:1000]))), "frame image: unpacked 1000 bytes, announced 1001"},
		"LZ4 noise":        {forge(header{kind: TypeImage, codec: CodecLZ4}, packed(1000, []byte("\x1f\xff\xff\xff"))), ""},
		"LZ4 nothing":      {forge(header{kind: TypeImage, codec: CodecLZ4}, packed(1000, nil)), ""},
		"zstd too much":    {forge(header{kind: TypeImage, codec: CodecZstd}, packed(999, zstdOf(t, zeros[:1000]))), ""},
		"zstd too little":  {forge(header{kind: TypeImage, codec: CodecZstd}, packed(1001, zstdOf(t, zeros[:1000]))), "frame image: unpacked 1000 bytes, announced 1001"},
		"zstd noise":       {forge(header{kind: TypeImage, codec: CodecZstd}, packed(1000, []byte("noise"))), ""},
		"zstd nothing":     {forge(header{kind: TypeImage, codec: CodecZstd}, packed(1000, nil)), "frame image: unpacked 0 bytes, announced 1000"},
		"zstd bomb":        {forge(header{kind: TypeFileData, codec: CodecZstd}, packed(1, bomb)), ""},
		"zstd many frames": {forge(header{kind: TypeFileData, codec: CodecZstd}, packed(MaxPayload, many)), ""},
		"zstd window": {forge(header{kind: TypeFileData, codec: CodecZstd}, // 2^31 bytes of window
			packed(1000, []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3, 0x03, 0xe8, 0x00, 'x'})), ""},
	}
}

func TestHostileFrames(t *testing.T) {
	for name, h := range hostile(t) {
		t.Run(name, func(t *testing.T) {
			typ, payload, err := connOf(h.wire).ReadFrame()
			if fault.KindOf(err) != fault.Protocol || payload != nil || typ != 0 {
				t.Fatalf("%s with %d bytes, error %v", typ, len(payload), err)
			}
			if h.want != "" && err.Error() != h.want {
				t.Errorf("%q, want %q", err, h.want)
			}
		})
	}
}

func TestHostileFramesTakeNoMemory(t *testing.T) {
	const limit = 4 * MaxPayload // a legal frame takes two, the Zstandard decoder its tables
	for name, h := range hostile(t) {
		c := connOf(h.wire)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, _, err := c.ReadFrame()
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > limit {
			t.Errorf("%s: %d bytes allocated, error %v", name, n, err)
		}
	}
}

func TestOversizedLengthTakesNoMemory(t *testing.T) {
	for _, h := range []header{
		{kind: TypePages, length: 1<<32 - 1},
		{kind: TypePages, codec: CodecZstd, length: 1<<32 - 1},
		{kind: TypeOffer, length: MaxPayload},
	} {
		c := connOf(forge(h, nil))
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, _, err := c.ReadFrame()
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 16<<10 || err == nil {
			t.Errorf("%+v: %d bytes allocated, error %v", h, n, err)
		}
	}
}

func TestSteadyStateAllocations(t *testing.T) {
	var wire bytes.Buffer
	for _, codec := range codecs {
		wire.Write(encode(t, codec, []frame{{TypePages, make([]byte, MaxPayload)}}))
	}
	stream := bytes.NewReader(wire.Bytes())
	c := NewConn(stream, nil)
	var before, after runtime.MemStats
	const rounds = 50
	for i := range rounds + 1 {
		if i == 1 { // the first round fills the buffers
			runtime.ReadMemStats(&before)
		}
		stream.Seek(0, io.SeekStart)
		for range codecs {
			if _, p, err := c.ReadFrame(); err != nil || len(p) != MaxPayload {
				t.Fatal(len(p), err)
			}
		}
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > rounds*16<<10 {
		t.Errorf("%d bytes allocated for %d frames of %d", n, rounds*len(codecs), MaxPayload)
	}
}
