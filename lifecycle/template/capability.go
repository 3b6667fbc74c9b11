package template

import (
	"encoding/binary"
	"fmt"
)

// capability is the extended attribute of file capabilities.
const capability = "security.capability"

// From linux/capability.h: struct vfs_cap_data (version 2) and struct
// vfs_ns_cap_data (version 3). Both are little-endian: the magic with the
// version in its high byte, two pairs of words with permitted and inheritable
// sets, and in version 3 the kernel's uid of the user namespace's root.
const (
	capVersionMask = 0xff000000
	capVersion2    = 0x02000000
	capVersion3    = 0x03000000
	capSize2       = 20
	capSize3       = 24
)

// shiftCapability returns the security.capability value that means the same in
// a user namespace whose root is uid in the initial one as value means where
// the archive was made. Without such a namespace (uid 0) that is version 2,
// otherwise version 3; see capabilities(7), "Namespaced file capabilities".
func shiftCapability(value []byte, uid uint32) ([]byte, error) {
	if len(value) != capSize2 && len(value) != capSize3 {
		return nil, fmt.Errorf("file capability of %d bytes", len(value))
	}
	magic := binary.LittleEndian.Uint32(value)
	var root uint32
	switch version := magic & capVersionMask; {
	case version == capVersion2 && len(value) == capSize2:
	case version == capVersion3 && len(value) == capSize3:
		root = binary.LittleEndian.Uint32(value[capSize2:])
	default:
		return nil, fmt.Errorf("file capability version %#x", version)
	}
	if root >= idRange {
		return nil, fmt.Errorf("file capability of uid %d", root)
	}
	root += uid
	version := uint32(capVersion3)
	if root == 0 {
		version = capVersion2
	}
	out := binary.LittleEndian.AppendUint32(nil, magic&^capVersionMask|version)
	out = append(out, value[4:capSize2]...)
	if root != 0 {
		out = binary.LittleEndian.AppendUint32(out, root)
	}
	return out, nil
}
