package transport

import (
	"regexp"
	"strings"
)

// imageRun is the most bytes of an image that WriteImage puts in one frame.
const imageRun = 512 << 10

// imageHeadSize is that of the fields before the name.
const imageHeadSize = 2

var imageName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)

// Image is a run of bytes of one CRIU image. Runs of one image follow each
// other in order; Last marks the final one, which may be empty.
type Image struct {
	Name string // a file name without any path: letters, digits, ".", "_", "-"
	Last bool
	Data []byte
}

// WriteImage writes m, in several frames if Data is long; Last is set on the
// final one only. Errors are those of WriteFrame, and fault.Protocol for a
// name that is not well-formed.
func (c *Conn) WriteImage(m Image) error {
	if err := checkImageName(m.Name); err != nil {
		return err
	}
	head := append([]byte{0, byte(len(m.Name))}, m.Name...)
	for len(m.Data) > imageRun {
		if err := c.WriteFrame(TypeImage, head, m.Data[:imageRun]); err != nil {
			return err
		}
		m.Data = m.Data[imageRun:]
	}
	if m.Last {
		head[0] = 1
	}
	return c.WriteFrame(TypeImage, head, m.Data)
}

// ParseImage reads and checks the payload of an image frame. Data is part of b.
// Errors have kind fault.Protocol.
func ParseImage(b []byte) (Image, error) {
	if len(b) < imageHeadSize || len(b) < imageHeadSize+int(b[1]) {
		return Image{}, malformed(TypeImage, "%d bytes, name missing", len(b))
	}
	if b[0] > 1 {
		return Image{}, malformed(TypeImage, "last is %d, want 0 or 1", b[0])
	}
	end := imageHeadSize + int(b[1])
	m := Image{Name: string(b[imageHeadSize:end]), Last: b[0] == 1, Data: b[end:]}
	if err := checkImageName(m.Name); err != nil {
		return Image{}, err
	}
	return m, nil
}

// checkImageName lets no name out of the directory it is joined to.
func checkImageName(name string) error {
	if !imageName.MatchString(name) || strings.Contains(name, "..") {
		return malformed(TypeImage, "name %q not allowed", name)
	}
	return nil
}
