// Package files moves a directory tree, a container's private area, in
// repeated passes: everything first while the container runs, then what changed
// since, the last time while it is frozen.
//
// Three parts meet at two seams. The scanner (Source: scanner, tracked, moves)
// finds what changed, by an index of what the receiver has; the pipeline has
// workers read and pack it (small, large, based) and puts it on the wire; the
// receiver (Target: batch, content, aside, level) rebuilds it in a staging
// directory, and has no memory of earlier passes but that directory itself.
//
// # What is carried
//
// Regular files with their holes, directories, symbolic links, hard links,
// devices, FIFOs, sockets; numeric owner and group, all mode bits, access and
// modification times in nanoseconds, extended attributes of the classes user,
// trusted and security, POSIX ACLs, the inode flags immutable, append-only,
// nodump, noatime and sync, project identifiers with their inheritance;
// deletions, moves and changes of type. Names are bytes, UTF-8 or not. Not
// carried: birth times, and what is mounted over the tree.
//
// # What counts as changed
//
// An entry goes again if its inode, ctime, mtime, size, mode or link count
// differ from the last time, if it was seen to be written, or if its ctime was
// then so young that a write which had set it may not have been complete. Of a
// regular file whose content
// was summed, the blocks go that differ; of others all of it, because mtime and
// size can be put back and ctime does not say what changed. Writes through
// shared mappings may not move any time stamp: PassOptions.Writers names those
// files. Where package watch sees the file system, a pass looks at what that
// saw; else, and for the first time, at everything.
//
// # Wire
//
// A pass is files-begin, then the frames below in any number, then files-end.
// All numbers are big endian. Paths are relative to the root, with no slash at
// either end; the root is empty. They have their length in 2 bytes before them,
// but where a path is all that is left of a payload: in file-delete, file-aside
// and file-back. A path comes once in a pass, unless it is deleted, put aside
// or brought back in between: batches are written side by side.
//
// files-begin, JSON, passes count from 1; seed is that of all sums:
//
//	{"pass":1,"frozen":false,"seed":"1a2b3c4d5e6f7081"}
//
// files-end, JSON: the number of entries, links among them, of bytes of content
// in file-data and file-batch, of deleted paths. The receiver compares them:
//
//	{"entries":1,"bytes":0,"deleted":0}
//
// file-delete: a path; if it is a directory, all beneath it goes too. A path
// that does not exist is an error.
//
// file-aside: 8 bytes of a number, then a path. What is there leaves the tree
// and is kept under that number, which must be free. file-back: the same, what
// was put aside comes to the path, where nothing is. What is still aside at
// files-end is deleted.
//
// file-entry:
//
//	1  form    1 object, 2 one more hard link
//	…  path
//
// form 2 goes on with the path of an entry that exists and is no directory.
// form 1 goes on with the metadata:
//
//	4  mode    type and permission bits as in stat(2)
//	4  uid     not 2^32-1, which chown(2) takes for "leave it"
//	4  gid     likewise
//	4  major   of a device, at most 4095; else 0
//	4  minor   of a device, at most 1048575; else 0
//	8  size    of a regular file, at most 2^60; else 0
//	8  atime, seconds (signed)
//	4  atime, nanoseconds, below 10^9
//	8  mtime, seconds (signed)
//	4  mtime, nanoseconds, below 10^9
//	4  flags   FS_XFLAG_* of ioctl_xfs_fsgetxattr(2): immutable 0x8, append
//	           0x10, sync 0x20, noatime 0x40, nodump 0x80, projinherit 0x200;
//	           of regular files and directories, else 0
//	4  project identifier, likewise
//	1  basis   of a regular file, else 0:
//	           0 none    a new inode, empty
//	           1 same    the inode at the path, a regular file, as it is
//	           2 tree    a new inode, empty; file-copy takes from a file of the
//	                     tree as it is now
//	           3 base    likewise, from a file of the base
//	…  path of the file that basis 2 and 3 mean; else empty
//	…  target  of a symbolic link, else empty
//	2  number of extended attributes, each:
//	1    length of the name
//	…    name
//	4    length of the value
//	…    value
//
// An entry replaces whatever is at its path, unless both are directories or the
// basis is "same". Its parent is a directory that exists. A directory comes
// before what is in it and takes its metadata when the pass has left it. The
// entry of a regular file is followed by runs of content, ascending and not
// overlapping, and nothing else may come between:
//
// file-data:
//
//	8  offset  not below the end of the run before it
//	…  bytes   ending at or before size
//
// file-copy, of basis 2 and 3:
//
//	8  offset
//	8  from    offset in the file that is taken from
//	4  length  1 to 1 MiB
//	8  sum     XXH3, 64 bits, with the seed, of the bytes: what is copied must
//	           have it, or that file has changed meanwhile
//
// file-hole, of basis 1 (there, what no run covers stays as it is):
//
//	8  offset
//	8  length
//
// What no run covers of other bases is a hole. A file-data frame without bytes,
// its offset equal to size, ends the file; every regular file has one, an empty
// file too. With basis 1, the file is cut to size before any run.
//
// file-batch: small regular files of one directory, whole:
//
//	…  path of the directory
//	then, up to the end of the payload:
//	4  length of the entry
//	…  the payload of a file-entry of form 1, of a regular file; its path is one
//	   name. Basis 1 means here: the inode that is there, with new content
//	…  content: size bytes; with basis 2 and 3, whose file has that size, the
//	   8 bytes of its sum
//
// # Base
//
// The receiver may have a tree that is like the one to come, and not in use: a
// base. It is read and never written. After accept and before the first pass
// the receiver tells what is in it, in base-files frames:
//
//	…  path of a directory
//	then, up to the end of the payload, regular files in it that are not empty:
//	1  length of the name
//	…  name
//	8  size
//	16 the first bytes of its BLAKE3 sum; zeros if it is larger than 64 MiB,
//	   and can be found by its path only
//
// and base-end, JSON: {"files":1}. Within a pass the sender may send file-sign,
// a number of 4 bytes and the path of a file of the base; the receiver answers,
// in any order and at any time, with file-signature frames:
//
//	4  number
//	1  last    1 on the last frame of this signature, else 0
//	…  bytes of the signature, see package delta; none at all if the file is gone
//
// # Limits
//
//	path                       65535 bytes
//	component of a path        255 bytes
//	target of a symbolic link  4095 bytes
//	extended attributes        1024 in an entry, 512 KiB with their names
//	value of one               64 KiB
//	size of a file             2^60 bytes
//	bytes in a file-data frame 512 KiB from this sender, a frame's limit from any
//
// The sender refuses a tree that is beyond them, the receiver a peer that is.
package files
