package migrate

import (
	"context"
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/lifecycle"
	"github.com/vzkit/vzkit/lifecycle/image"
	"github.com/vzkit/vzkit/transport/blocks"
	"github.com/vzkit/vzkit/transport/blocks/watch"
	"github.com/vzkit/vzkit/transport/files"
)

// The ways in which a private area goes over.
const (
	byFiles  = "files"
	byBlocks = "blocks"
)

// ImageOffer says that the source could send its image as it is.
type ImageOffer struct {
	Size      int64  `json:"size"`      // of the file
	Allocated uint64 `json:"allocated"` // bytes of it that are no holes
}

// A file system keeps blocks of what was deleted. If its image has more than
// half as much again as its files, and this for what it needs itself, the files
// are less.
const imageSlack = 64 << 20

// mover sends the private area in passes.
type mover interface {
	Pass(ctx context.Context, w files.FrameWriter, o files.PassOptions) (files.Stats, error)
	Watched() error // why later passes look at everything; nil if they do not
	Close() error
}

// imageMover sends it as an image.
type imageMover struct {
	volume *image.Volume
	src    *blocks.Source
	conn   blocks.FrameWriter
	top    *os.File // a directory of the file system; nil if nobody uses that
	last   bool     // this is the last pass
}

// Watched is nil: without a watch there is no imageMover of a container that
// runs.
func (m *imageMover) Watched() error { return nil }

func (m *imageMover) Pass(ctx context.Context, _ files.FrameWriter, o files.PassOptions) (files.Stats, error) {
	m.last = o.Frozen && !o.More
	n, err := m.src.Pass(ctx, m.conn, blocks.PassOptions{
		Pass: o.Pass, Frozen: m.last, Hurry: o.More, Codec: o.Codec, Progress: func(n blocks.Stats) { o.Progress(blockStats(n)) },
	})
	return blockStats(n), err
}

// blockStats counts blocks for entries, and those that became holes for deleted
// ones.
func blockStats(n blocks.Stats) files.Stats {
	return files.Stats{Entries: n.Looked, Sent: n.Data / blocks.Block, Bytes: n.Data, Deleted: n.Holes / blocks.Block, Tracked: n.Tracked}
}

// sync leaves little in the journal for the last pass, which has no time for it.
func (m *imageMover) sync() error { return image.Settle(m.top, !m.last) }

// Close lets go of the image. Closing twice is fine.
func (m *imageMover) Close() error {
	var errs []error
	if m.src != nil {
		errs = append(errs, m.src.Close())
	}
	if m.volume != nil {
		errs = append(errs, m.volume.File.Close())
	}
	if m.top != nil {
		errs = append(errs, m.top.Close())
	}
	m.src, m.volume, m.top = nil, nil, nil
	return errors.Join(errs...)
}

// watchImage watches the image of a running container, whose files are in dir.
func watchImage(i image.Image, dir string, conn blocks.FrameWriter) (m *imageMover, err error) {
	m = &imageMover{conn: conn}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.Close())
		}
	}()
	if m.volume, err = i.InUse(); err != nil {
		return nil, err
	}
	if m.top, err = os.Open(dir); err != nil {
		return nil, err
	}
	m.src, err = blocks.NewSource(m.volume.File, &watch.Device{Major: m.volume.Major, Minor: m.volume.Minor}, m.sync)
	return m, err
}

// claimImage takes the image of a stopped container, which nobody may use any
// more.
func claimImage(ctx context.Context, i image.Image, conn blocks.FrameWriter) (*imageMover, error) {
	v, err := i.Claim(ctx)
	if err != nil {
		return nil, err
	}
	m := &imageMover{volume: v, conn: conn}
	if m.src, err = blocks.NewSource(v.File, nil, nil); err != nil {
		return nil, errors.Join(fault.New(fault.Copy, "read image: %w", err), m.Close())
	}
	return m, nil
}

// offerImage finds out whether the container could go as an image, and begins
// to watch that if it runs. With --keep-dst it could not: a part of an image is
// no base for another attempt.
func (s *source) offerImage() (*ImageOffer, error) {
	to, err := lifecycle.ParseLayout(s.Layout)
	if s.c.Layout() != lifecycle.LayoutImage || s.Layout != "" && (err != nil || to != lifecycle.LayoutImage) || s.KeepDst {
		return nil, nil
	}
	var st unix.Stat_t
	if err := unix.Stat(s.c.Image().Path(), &st); err != nil {
		return nil, fault.New(fault.Copy, "look at image: %w", err)
	}
	o := &ImageOffer{Size: st.Size, Allocated: uint64(st.Blocks) * 512}
	if o.Size%blocks.Block != 0 { // it was not made here
		return nil, nil
	}
	if o.Allocated > s.disk+s.disk/2+imageSlack {
		s.Emit(Event{Kind: Note, Text: "files go one by one: the image has far more blocks than they need; vzctl compact gives those back"})
		return nil, nil
	}
	if !s.live {
		return o, nil
	}
	m, err := watchImage(s.c.Image(), s.dir, s.peer.Conn)
	if err != nil {
		s.Emit(Event{Kind: Note, Text: "files go one by one: " + err.Error()})
		return nil, nil
	}
	s.undo.Push("end watch", m.Close)
	s.tree = m
	return o, nil
}

// agree goes the way that the destination has chosen.
func (s *source) agree(offered *ImageOffer, way string) error {
	s.report.Way = byFiles
	switch {
	case way != byBlocks && s.tree != nil:
		err := s.tree.Close()
		s.tree = nil
		return err
	case way != byBlocks:
		return nil
	case offered == nil:
		return fault.New(fault.Protocol, "destination wants an image that was not offered")
	}
	s.report.Way, s.disk = byBlocks, offered.Allocated
	return nil
}

// openTree makes ready what sends the private area.
func (s *source) openTree(ctx context.Context) (err error) {
	switch {
	case s.tree != nil: // watched since the offer
		return nil
	case s.report.Way != byBlocks:
		s.tree, err = files.NewSource(s.dir, files.SourceOptions{Once: !s.live, Size: int64(s.disk)})
	default:
		if err = s.release(); err == nil {
			s.tree, err = claimImage(ctx, s.c.Image(), s.peer.Conn)
		}
	}
	if err == nil {
		s.undo.Push("close tree", s.tree.Close)
	}
	return err
}
