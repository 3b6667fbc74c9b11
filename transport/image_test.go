package transport

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vzkit/vzkit/internal/fault"
)

func TestImageRoundTrip(t *testing.T) {
	forEachCodec(t, func(t *testing.T, codec Codec) {
		var b bytes.Buffer
		c := NewConn(&b, &b)
		c.SetCodec(codec)
		want := []Image{
			{"core-42.img", false, []byte("first ")},
			{"pstree.img", true, bytes.Repeat([]byte("tree "), 100)},
			{"core-42.img", true, []byte{}},
			{strings.Repeat("n", 128), true, []byte{0}},
		}
		for _, m := range want {
			if err := c.WriteImage(m); err != nil {
				t.Fatal(err)
			}
		}
		c.Flush()
		if d := cmp.Diff(want, images(t, c)); d != "" {
			t.Error(d)
		}
	})
}

// images reads up to the end of c.
func images(t *testing.T, c *Conn) []Image {
	t.Helper()
	frames, err := readAll(c)
	if err != io.EOF {
		t.Fatal(err)
	}
	var all []Image
	for _, f := range frames {
		m, err := ParseImage(f.Payload)
		if err != nil || f.Type != TypeImage {
			t.Fatal(f.Type, err)
		}
		all = append(all, m)
	}
	return all
}

func TestLongImagesAreSplit(t *testing.T) {
	for _, size := range []int{imageRun - 1, imageRun, imageRun + 1, 3*imageRun + 5} {
		var b bytes.Buffer
		c := NewConn(&b, &b)
		want := bytes.Repeat([]byte("0123456"), size/7+1)[:size]
		if err := errors.Join(c.WriteImage(Image{"pages-1.img", true, want}), c.Flush()); err != nil {
			t.Fatal(err)
		}
		var got []byte
		runs := images(t, c)
		for i, m := range runs {
			got = append(got, m.Data...)
			if m.Last != (i == len(runs)-1) {
				t.Errorf("%d bytes: run %d of %d has last %v", size, i, len(runs), m.Last)
			}
		}
		if !bytes.Equal(got, want) || len(runs) != (size+imageRun-1)/imageRun {
			t.Errorf("%d bytes became %d in %d runs", size, len(got), len(runs))
		}
	}
}

func TestImageNames(t *testing.T) {
	for name, ok := range map[string]bool{
		"inventory.img": true, "pages-1.img": true, "tmpfs-dev-33.tar.gz.img": true, "A_0": true,
		"": false, ".": false, "..": false, ".hidden": false, "-flag": false, "a..b": false,
		"../x": false, "a/b": false, "/etc/passwd": false, "a\\b": false, "a\x00b": false, "a b": false,
		"a\n": false, "ü": false, strings.Repeat("n", 128): true, strings.Repeat("n", 129): false,
	} {
		forged := append([]byte{0, byte(len(name))}, name...)
		_, parse := ParseImage(forged)
		for what, err := range map[string]error{"parse": parse, "write": NewConn(nil, io.Discard).WriteImage(Image{Name: name})} {
			if (err == nil) != ok || (!ok && fault.KindOf(err) != fault.Protocol) {
				t.Errorf("%s %q: %v", what, name, err)
			}
		}
	}
}

func TestMalformedImages(t *testing.T) {
	for _, b := range []string{"", "\x00", "\x00\x05abcd", "\x02\x01a", "\x00\xffa"} {
		if _, err := ParseImage([]byte(b)); fault.KindOf(err) != fault.Protocol {
			t.Errorf("%q: %v", b, err)
		}
	}
}
