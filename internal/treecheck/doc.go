// Package treecheck looks at directory trees as the tests and benchmarks of
// file passes need it: it says what of a tree should have survived a move and
// did not, and it makes trees and changes to move.
//
// Snapshot reads a tree, Compare two of them. It shares no code with what moves
// trees, and sees what rsync(1) does not: nanoseconds of all times, inode flags,
// project identifiers, every extended attribute, holes and allocation, paths
// beyond PATH_MAX. CompareByRsync asks rsync, as the second opinion.
//
// Generate makes a tree at random, Mutate changes one; the same seed makes the
// same tree and the same changes. Neither reads in a way that moves an access
// time. Trees with Options.Flags must be unsealed (Unseal) before they can be
// removed.
//
// Paths are relative to the root, which is "". Everything here needs root.
//
// Sources: lseek(2) for holes, xattr(7), ioctl_xfs_fsgetxattr(2) and Linux
// include/uapi/linux/fs.h for flags, linux/posix_acl_xattr.h and
// linux/capability.h for the values of attributes.
package treecheck
