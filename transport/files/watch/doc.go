// Package watch answers which directory entries of a file system may have
// changed since it was asked last, by fanotify(7) on the whole file system.
//
// It sees every change that a system call makes, through whatever mount, in
// whatever namespace, on the host or in a container, for the kernel tells it of
// inodes and not of paths. It says more than what changed, never less, but for
// what is listed below.
//
// # Protocol
//
// Open; then Take and look at the whole tree; then again and again Take, and
// look at what it says. Looking at a directory means: make it known, that is,
// have Take's known say true for it from then on; then list it, with lstat of
// every entry; directories found in it that are not known yet are looked at in
// turn, with all beneath them, wherever they came from. Looking at an entry of
// Names means lstat of it: it may be gone, new, another type or inode, or what
// it was. Looking at an inode of Files means lstat of whatever names the caller
// knows for it, with one link too: an event has the name by which a file was
// opened, and that may be gone since, or never have been in the tree. A path
// that no longer leads to the directory it belongs to (compare fstat's inode)
// says that something above has moved: keep what was to be looked at, the next
// Take tells where it is.
//
// Why nothing is lost: the kernel changes first and tells then, both before the
// system call returns. Take the moment T of a Take. What happened in a
// directory before T is seen by who looks after T; what happens later is told
// to the next Take, and by then every directory that has been listed is known.
// Events of directories that are not known at T are kept, as bare numbers, for
// one Take more, and come as Dirs if they are known then. So it does no harm if
// a directory becomes known a while after it was found.
//
// An inode number may be used again, for another directory or a file: then what
// belongs to the old one is reported of the new one.
//
// # What is not seen
//
//   - Inode flags and project identifiers (chattr(1), FS_IOC_SETFLAGS,
//     FS_IOC_FSSETXATTR): the kernel raises no event at all. Only a look at the
//     ctime finds them.
//   - Access times set alone (touch -a), which are FAN_ACCESS; and what reading
//     does to them.
//   - Writes through shared mappings and by io_submit(2), as long as the file is
//     open or mapped: the last close (of the descriptor or the mapping) reports
//     them. So a caller adds all files that are open for writing or mapped
//     shared and writable at the moment that matters.
//   - Writes of the kernel itself: a loop device, a swap file, an overlay mount
//     over the tree on kernels that open its files without notification.
//
// Reading, listing and lstat raise no event, so the caller's own looking is not
// reported back to it.
//
// # Bounds
//
// What is kept between two Takes stays below 64 MiB, about a million names: the
// directories with most names become Dirs, and if that is not enough, all is
// lost until the next Take. The file system of a host is noisy; what others
// write counts until the next Take, too. The queue of the kernel is unlimited,
// because a burst must not cost a walk of the tree, but a watch that cannot keep
// up ends with ErrBehind at half a million events, about 100 MiB. While this
// process is stopped by a signal nobody watches over that.
//
// # File systems
//
// ext2, ext3, ext4 and XFS: their file handles have the inode number in a known
// place, and Open proves it with that of the root. btrfs numbers inodes by
// subvolume, overlayfs and FUSE do not report what happens beneath them; they
// and others are refused. Linux 5.9 and CAP_SYS_ADMIN on the host are needed.
//
// Sources: fanotify(7), fanotify_init(2), fanotify_mark(2),
// name_to_handle_at(2); fs/notify/ and include/linux/fsnotify.h of Linux.
package watch
