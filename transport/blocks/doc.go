// Package blocks moves a sparse file with a file system in it, an image, in
// repeated passes: all that it has first, while the file system is in use, then
// what was written since, the last time while nobody writes.
//
// # What counts as changed
//
// The file system's device is watched (package watch): writes, discards and
// zeroes leave bits, one for each block of 4 KiB, more in images beyond 1 TiB.
// A pass first has the file system bring out what it holds (syncfs(2)), takes
// the bits, and reads those blocks from the file. A write that ends later has
// its bit in the next pass. If the watch has lost something, the next pass reads
// all that the file has, and sends what has another sum than it was sent with:
// XXH3 by units of 64 blocks, with a seed that nobody in the file system knows.
//
// The bits are exact, so the last pass costs what was written and not what is
// there. Reading and comparing everything each time would need no watch; its
// last pass takes as long as the image is large. blktrace(8) tells of writes
// through buffers that overflow. dm-era and dm-clone must be below the file
// system before it is mounted, and not every kernel has them.
//
// # The last pass
//
// Nothing of the container runs then, but the kernel may write on its own. So
// the pass ends when no write has come to its end since it took its bits, and
// begins again with the sync if one has. What has been sent then is the disk as
// it was when the sync ended, perhaps with parts of writes that have not ended:
// to the file system that is a loss of power just after a sync. Nothing that it
// was told to be on the disk is missing, and it replays its journal when it is
// mounted. Freezing it (FIFREEZE) would spare that; but a frozen file system
// stays frozen when this process is killed, and its container hangs. Whoever
// wants a short replay has the journal emptied in the syncs before.
//
// The file is read past the page cache where its loop device writes past it
// (LO_FLAGS_DIRECT_IO), else through it. The device itself has a page cache of
// its own, which knows nothing of what files have; it is never read.
//
// # Wire
//
// A pass is blocks-begin, then the frames below in any number and order, then
// blocks-end. All numbers are big endian. Offsets and lengths are multiples of
// 4096 bytes, lengths are at least that, and nothing lies beyond the size. What
// comes later replaces what came before at the same place.
//
// blocks-begin, JSON, passes count from 1; size is that of the file, and the
// same each time; frozen marks the last pass; hurry, one that the receiver need
// not wait for to be on its disk before it goes on:
//
//	{"pass":1,"frozen":false,"hurry":false,"size":10737418240}
//
// blocks-data:
//
//	8  offset
//	…  bytes, 256 KiB at most from this sender, a frame's limit from any
//
// blocks-hole, what reads as zero and has no place on the disk:
//
//	8  offset
//	8  length
//
// blocks-end, JSON, the sums of their lengths, which the receiver compares:
//
//	{"data":4096,"holes":8192}
//
// The file is new and empty before the first pass: what no frame covers is a
// hole.
//
// # Bounds
//
// Bits and sums take 16 bytes for 64 blocks, which are at most 4 million: 64 MiB
// for the largest image, 640 KiB for one of 10 GiB.
//
// Errors: fault.Copy for the image, fault.NoSpace, fault.Protocol for what no
// honest sender sends, fault.Interrupted, and those of the connection.
package blocks
