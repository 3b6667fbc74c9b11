package lifecycle

import (
	"math"
	"math/bits"
	"os"
	"strconv"
	"strings"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/lifecycle/config"
	"github.com/vzkit/vzkit/lifecycle/image"
)

// Layout is how a private area holds a container's files.
type Layout string

// The layouts. Those that OpenVZ calls simfs and ploop are near enough to go by
// the same names.
const (
	LayoutDir   Layout = "dir"   // the private area is the container's root directory
	LayoutImage Layout = "image" // it holds an image of a file system, see package image
)

// DefaultDiskSpace is the size of an image where nothing says otherwise. It is
// a limit, not a reservation.
const DefaultDiskSpace = 10 << 30

// ParseLayout reads a layout as --layout and VE_LAYOUT have it. The modes of
// ploop, which say how its file is allocated, mean the same image here.
func ParseLayout(s string) (Layout, error) {
	switch strings.ToLower(s) {
	case "dir", "simfs":
		return LayoutDir, nil
	case "image", "ploop", "ploop:expanded", "ploop:plain", "ploop:raw":
		return LayoutImage, nil
	}
	return "", fault.New(fault.BadValue, "layout %q is not known", s).WithHint("There are dir (simfs) and image (ploop).")
}

var suffixes = map[byte]uint64{'B': 1, 'K': 1 << 10, 'P': 4 << 10, 'M': 1 << 20, 'G': 1 << 30, 'T': 1 << 40}

// ParseDiskSpace reads a size as --diskspace and DISKSPACE have it, in bytes:
// KiB, or with a suffix B, K, P (pages of 4 KiB), M, G, T; of two, barrier and
// limit, the limit counts, since an image has no other.
func ParseDiskSpace(s string) (int64, error) {
	soft, hard, two := strings.Cut(s, ":")
	low, err := parseSize(soft)
	if err != nil || !two {
		return low, err
	}
	high, err := parseSize(hard)
	if err == nil && low > high {
		err = fault.New(fault.BadValue, "barrier of disk space %q is above its limit", s)
	}
	return high, err
}

func parseSize(s string) (int64, error) {
	digits, unit := s, suffixes['K']
	if s != "" {
		if u, ok := suffixes[s[len(s)-1]&^0x20]; ok {
			digits, unit = s[:len(s)-1], u
		}
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	over, total := bits.Mul64(n, unit)
	if err != nil || over != 0 || total > math.MaxInt64 {
		return 0, fault.New(fault.BadValue, "disk space %q is no size", s).
			WithHint("A size is a number of KiB, or one with B, K, M, G or T behind it, such as 10G.")
	}
	if total < image.MinSize || total > image.MaxSize {
		return 0, fault.New(fault.BadValue, "disk space %q is not in %dM..%dT", s, image.MinSize>>20, (image.MaxSize+4096)>>40)
	}
	return int64(total), nil
}

// Layout is the container's. A config that says nothing is that of a container
// from before there was a choice.
func (c *Container) Layout() Layout {
	if v, ok := c.Conf.Get("VE_LAYOUT"); ok && v != "" {
		l, _ := ParseLayout(v) // checked when the container was opened
		return l
	}
	return LayoutDir
}

// SetLayout puts a layout, and for an image its size in bytes, into the
// container's config.
func (c *Container) SetLayout(l Layout, size int64) error {
	if err := c.Conf.Set("VE_LAYOUT", string(l)); err != nil || l != LayoutImage {
		return err
	}
	kib := strconv.FormatInt(size>>10, 10)
	return c.Conf.Set("DISKSPACE", kib+":"+kib)
}

// DiskSpace is the size of the container's image, in bytes, or what it would
// be.
func (c *Container) DiskSpace() int64 {
	if v := c.get("DISKSPACE", ""); v != "" {
		if n, err := ParseDiskSpace(v); err == nil { // checked when the container was opened
			return n
		}
	}
	return DefaultDiskSpace
}

// checkLayout refuses values of VE_LAYOUT and DISKSPACE that cannot be used. A
// size that nothing depends on may be anything: OpenVZ's samples have sizes that
// are none for an image.
func (c *Container) checkLayout() error {
	if v, ok := c.Conf.Get("VE_LAYOUT"); ok && v != "" {
		if _, err := ParseLayout(v); err != nil {
			return err
		}
	}
	if v := c.get("DISKSPACE", ""); v != "" && c.Layout() == LayoutImage {
		_, err := ParseDiskSpace(v)
		return err
	}
	return nil
}

// layoutOf is the layout of a container to be created, and its image's size.
func (h *Host) layoutOf(layout, space string) (l Layout, size int64, err error) {
	if layout == "" {
		layout = h.global("VE_LAYOUT", string(LayoutDir), 0)
	}
	if l, err = ParseLayout(layout); err != nil {
		return "", 0, err
	}
	if l == LayoutDir && space != "" {
		return "", 0, fault.New(fault.BadValue, "disk space %q given for the layout dir, which has no size", space).
			WithHint("Use --layout image with it.")
	}
	if space == "" {
		space = h.global("DISKSPACE", strconv.Itoa(DefaultDiskSpace>>10), 0)
	}
	if l == LayoutImage {
		size, err = ParseDiskSpace(space)
	}
	return l, size, err
}

// putLayout chooses a new container's layout.
func (h *Host) putLayout(f *config.File, layout, space string) error {
	l, size, err := h.layoutOf(layout, space)
	if err != nil {
		return err
	}
	return (&Container{Conf: f, host: h}).SetLayout(l, size)
}

// Image is the image in the private area of a container that has one.
func (c *Container) Image() image.Image { return c.image(c.Private()) }

// image is the image in a directory, the container's private area or one that
// becomes it.
func (c *Container) image(dir string) image.Image {
	return image.Image{Dir: dir, Label: c.label()}
}

// label is what the loop devices of the container's image bear.
func (c *Container) label() string { return "vzkit container " + c.id() }

// hasFiles tells whether the private area is there.
func (c *Container) hasFiles() (bool, error) {
	info, err := os.Stat(c.Private())
	if err != nil || !info.IsDir() || c.Layout() == LayoutDir {
		return err == nil && info.IsDir(), nil
	}
	return c.image(c.Private()).Exists()
}
