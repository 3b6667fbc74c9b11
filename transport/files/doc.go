// Package files moves a directory tree, a container's private area, in
// repeated passes: everything first while the container runs, then what changed
// since, the last time while it is frozen.
//
// Three parts meet at two seams. The scanner (Source, index) finds what
// changed, the encoder (sender, entry) puts it on the wire, the receiver
// (Target) rebuilds it in a staging directory. The receiver has no memory of
// earlier passes but the staging directory itself.
//
// # What is carried
//
// Regular files with their holes, directories, symbolic links, hard links,
// devices, FIFOs, sockets; numeric owner and group, all mode bits, access and
// modification times in nanoseconds, extended attributes of the classes user,
// trusted and security, POSIX ACLs; deletions and changes of type. Names are
// bytes, UTF-8 or not. Not carried: inode flags (chattr), birth times, project
// identifiers. What is mounted over the tree is not part of it.
//
// # What counts as changed
//
// An entry goes again if its device, inode, ctime, mtime, size, mode or link
// count differ from the last time, or if its ctime was then too young for the
// clock of the file system to tell a later write apart. A regular file that
// goes again goes with its content, because mtime and size can be put back and
// ctime does not say what changed. Writes through shared mappings may not move
// any time stamp: PassOptions.Always names those files.
//
// # Wire
//
// A pass is files-begin, then file-entry, file-data and file-delete in any
// number, then files-end. All numbers are big endian.
//
// files-begin, JSON, passes count from 1:
//
//	{"pass":1,"frozen":false}
//
// files-end, JSON: the number of file-entry frames, of bytes in file-data
// frames and of file-delete frames. The receiver compares them:
//
//	{"entries":1,"bytes":0,"deleted":0}
//
// file-delete: a path; if it is a directory, all beneath it goes too. A path
// that does not exist is an error.
//
// file-entry:
//
//	size  field
//	   1  form    1 object, 2 one more hard link
//	   2  length of the path
//	   …  path    relative to the root, no slash at either end; the root is empty
//
// form 2 goes on with the path of an entry that exists and is no directory:
//
//	2  length of the path
//	…  path
//
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
//	2  length of the target
//	…  target  of a symbolic link, else empty
//	2  number of extended attributes, each:
//	1    length of the name
//	…    name
//	4    length of the value
//	…    value
//
// An entry replaces whatever is at its path, unless both are directories. Its
// parent is a directory that exists. A directory comes before what is in it
// and takes its metadata when the pass has left it. The entry of a regular
// file is followed by its content and nothing else may come between:
//
// file-data:
//
//	8  offset  not below the end of the run before it
//	…  bytes   ending at or before size
//
// What no run covers is a hole. A file-data frame without bytes, its offset
// equal to size, ends the file; every regular file has one, an empty file too.
//
// # Limits
//
//	path                       65535 bytes
//	component of a path        255 bytes
//	target of a symbolic link  4095 bytes
//	extended attributes        1024 in an entry, 512 KiB with their names
//	value of one               64 KiB
//	size of a file             2^60 bytes
//	bytes in a file-data frame 256 KiB from this sender, a frame's limit from any
//
// The sender refuses a tree that is beyond them, the receiver a peer that is.
package files
