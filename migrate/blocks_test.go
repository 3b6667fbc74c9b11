package migrate

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/lifecycle"
	"github.com/vzkit/vzkit/lifecycle/image"
)

// An image comes by blocks if it can and nothing is there that is like it.
func TestChooseWay(t *testing.T) {
	whole := &ImageOffer{Size: 64 << 20, Allocated: 1 << 20}
	const conf = "VE_LAYOUT=image\nOSTEMPLATE=minimal\n"
	for name, c := range map[string]struct {
		offer Offer
		there func(h *lifecycle.Host) // what the destination has
		want  string
	}{
		"an image":          {Offer{Config: conf, Image: whole}, nil, byBlocks},
		"none is offered":   {Offer{Config: conf}, nil, byFiles},
		"a directory":       {Offer{Config: "VE_LAYOUT=dir\n", Image: whole}, nil, byFiles},
		"to a directory":    {Offer{Config: conf, Image: whole, Layout: "dir"}, nil, byFiles},
		"to an image":       {Offer{Config: conf, Image: whole, Layout: "ploop"}, nil, byBlocks},
		"a part to be kept": {Offer{Config: conf, Image: whole, KeepDst: true}, nil, byFiles},
		"a sibling":         {Offer{Config: conf, Image: whole}, func(h *lifecycle.Host) { put(t, h.ConfPath(102), "OSTEMPLATE=minimal\n") }, byFiles},
		"a small sibling": {Offer{Config: conf, Image: whole, Disk: siblingsHelp},
			func(h *lifecycle.Host) { put(t, h.ConfPath(102), "OSTEMPLATE=minimal\n") }, byBlocks},
		"another template's": {Offer{Config: conf, Image: whole}, func(h *lifecycle.Host) { put(t, h.ConfPath(102), "OSTEMPLATE=other\n") }, byBlocks},
		"its own, kept": {Offer{Config: conf, Image: whole, Disk: siblingsHelp}, func(h *lifecycle.Host) {
			area := filepath.Join(h.Lib, "private", "101")
			if err := os.MkdirAll(area, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := keep(h, 101, keptGone, area, lifecycle.LayoutImage); err != nil {
				t.Fatal(err)
			}
		}, byFiles},
	} {
		h := newHost(t)
		if c.there != nil {
			c.there(h)
		}
		c.offer.CTID = 101
		d := &destination{host: h, offer: c.offer}
		if err := d.check(); err != nil || d.way != c.want || d.accepted.Way != c.want {
			t.Errorf("%s: by %q, tells %q, %v; want %q", name, d.way, d.accepted.Way, err, c.want)
		}
	}
}

// The source goes along with what it has offered only.
func TestAgree(t *testing.T) {
	s := &source{}
	wantFault(t, "not offered", s.agree(nil, byBlocks), fault.Protocol, "not offered")
	for way, want := range map[string]string{byBlocks: byBlocks, byFiles: byFiles, "": byFiles, "else": byFiles} {
		m := &closes{}
		s := &source{tree: m}
		if err := s.agree(&ImageOffer{}, way); err != nil || s.report.Way != want || m.closed != (want == byFiles) {
			t.Errorf("%q: by %q, closed %v, %v", way, s.report.Way, m.closed, err)
		}
	}
}

// closes is a mover that is only closed.
type closes struct {
	mover
	closed bool
}

func (c *closes) Close() error {
	c.closed = true
	return nil
}

// An image that is no image is refused, and nothing of it is left.
func TestArrivalOfNoImage(t *testing.T) {
	h := newHost(t)
	d := &destination{host: h, offer: Offer{ID: "x", CTID: 101, Config: "VE_LAYOUT=image\n", Image: &ImageOffer{Size: image.MinSize + 1}}}
	if err := d.check(); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(d.c.Private()), 0o700); err != nil {
		t.Fatal(err)
	}
	wantFault(t, "odd size", d.makeArea(t.Context()), fault.Protocol, "image of")
	if err := d.undo.Run(); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(filepath.Dir(d.c.Private())); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}
