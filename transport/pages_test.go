package transport

import (
	"bytes"
	"io"
	"reflect"
	"strings"
	"testing"

	"github.com/vzkit/vzkit/internal/fault"
)

func goodPages() map[string]Pages {
	return map[string]Pages{
		"one page":      {SpaceTask, 42, 0x7f0000001000, 1, PagePresent, make([]byte, PageSize)},
		"most pages":    {SpaceShmem, 1<<64 - 1, 0, MaxPagesPerFrame, PagePresent | PageLazy, bytes.Repeat([]byte{9}, MaxPagesPerFrame*PageSize)},
		"hole":          {SpaceTask, 42, 0x1000, 1<<32 - 1, PageParent, []byte{}},
		"lazy":          {SpaceTask, 42, 0x1000, 5, PageLazy, []byte{}},
		"no flags":      {SpaceShmem, 0, 0, 5, 0, []byte{}},
		"newer flag":    {SpaceTask, 1, 0, 1, PagePresent | 1<<31, make([]byte, PageSize)},
		"highest place": {SpaceTask, 1, 1<<64 - 2*PageSize, 1, 0, []byte{}},
	}
}

func TestPagesRoundTrip(t *testing.T) {
	forEachCodec(t, func(t *testing.T, codec Codec) {
		for name, want := range goodPages() {
			var b bytes.Buffer
			c := NewConn(&b, &b)
			c.SetCodec(codec)
			if err := c.WritePages(want); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			c.Flush()
			typ, payload, err := c.ReadFrame()
			if err != nil || typ != TypePages {
				t.Fatalf("%s: %s, %v", name, typ, err)
			}
			got, err := ParsePages(payload)
			if !reflect.DeepEqual(want, got) || err != nil {
				t.Errorf("%s: changed, or %v", name, err)
			}
		}
	})
}

// payloadOf is the payload that write puts into its first frame.
func payloadOf(t testing.TB, write func(*Conn) error) []byte {
	t.Helper()
	var b bytes.Buffer
	c := NewConn(&b, &b)
	if err := write(c); err != nil {
		t.Fatal(err)
	}
	c.Flush()
	_, payload, err := c.ReadFrame()
	if err != nil {
		t.Fatal(err)
	}
	return payload
}

func TestPagesAreChecked(t *testing.T) {
	good := goodPages()["one page"]
	for want, change := range map[string]func(*Pages){
		"space 0 not known":                               func(p *Pages) { p.Space = 0 },
		"space 3 not known":                               func(p *Pages) { p.Space = 3 },
		"no pages":                                        func(p *Pages) { p.Count, p.Data = 0, nil }, // with flags
		"address 0x1001 not page-aligned":                 func(p *Pages) { p.Address = 0x1001 },
		"1 pages at 0xfffffffffffff000 overflow":          func(p *Pages) { p.Address = 1<<64 - PageSize },
		"4294967295 pages at 0xfffff00000001000 overflow": func(p *Pages) { p.Address, p.Count, p.Flags, p.Data = 1<<64-1<<44+PageSize, 1<<32-1, 0, nil },
		"129 pages exceed 128":                            func(p *Pages) { p.Count, p.Data = 129, make([]byte, 129*PageSize) },
		"4294967295 pages exceed 128":                     func(p *Pages) { p.Count = 1<<32 - 1 },
		"4096 bytes of data, want 8192":                   func(p *Pages) { p.Count = 2 },
		"4095 bytes of data, want 4096":                   func(p *Pages) { p.Data = p.Data[1:] },
		"0 bytes of data, want 4096":                      func(p *Pages) { p.Data = nil },
		"4096 bytes of data, want 0":                      func(p *Pages) { p.Flags = PageLazy },
	} {
		p := good
		change(&p)
		for what, err := range map[string]error{"write": NewConn(nil, io.Discard).WritePages(p), "parse": parseUnchecked(t, p)} {
			if err == nil || fault.KindOf(err) != fault.Protocol || err.Error() != "frame pages: "+want {
				t.Errorf("%s: %v, want %s", what, err, want)
			}
		}
	}
}

// parseUnchecked parses p's layout, written without p's checks.
func parseUnchecked(t *testing.T, p Pages) error {
	t.Helper()
	head := p.head()
	_, err := ParsePages(append(head[:], p.Data...))
	return err
}

func TestShortAndReservedPages(t *testing.T) {
	b := payloadOf(t, func(c *Conn) error { return c.WritePages(goodPages()["lazy"]) })
	for n := range b {
		if _, err := ParsePages(b[:n]); err == nil || !strings.Contains(err.Error(), "want at least 28") {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	for i := 1; i < 4; i++ {
		b[i] = 1
		if _, err := ParsePages(b); err == nil || !strings.Contains(err.Error(), "reserved") {
			t.Errorf("byte %d: %v", i, err)
		}
		b[i] = 0
	}
}
