// Package transport is the wire between the two hosts of a migration. It
// frames, checks, compresses and counts; it knows nothing of containers, and
// nothing of SSH, which package ssh below it provides. This comment is the
// protocol; the code follows it.
//
// # Roles
//
// The sender S is the source host, the receiver R the destination. R is
// "vzmigrate --receive", started over an SSH session: its standard input and
// output are the connection, its standard error stays free for people. Either
// side treats the other as hostile: lengths are capped before anything is
// allocated, text is stripped before it is shown, names are checked before
// they are used.
//
// # Frames
//
// Each direction is a sequence of frames and nothing else. All numbers are
// unsigned and big endian.
//
//	offset  size  field
//	     0     1  type      one of the Type constants
//	     1     1  codec     0 plain, 1 LZ4 block, 2 Zstandard
//	     2     2  reserved  0
//	     4     4  length    of the encoded payload, in bytes
//	     8     4  checksum  CRC-32C of bytes 0 to 7 and the encoded payload
//	    12     …  encoded payload
//
// With codec 0 the encoded payload is the payload. Any other codec puts the
// length of the plain payload before the packed bytes:
//
//	offset  size  field
//	     0     4  plain length, at least 1
//	     4     …  packed bytes: one LZ4 block, or Zstandard frames
//
// The codec is chosen frame by frame; a reader of version 1 knows all three.
// Only pages, image, file-data, file-batch, file-signature, base-files, memory
// and blocks-data may be packed (the bulk frames). A payload below 256 bytes, or
// one that does not shrink, goes plain.
//
// Those, file-entry, file-delete, file-copy, file-hole, file-aside, file-back,
// blocks-hole and packets (together: the stream frames) may wait in the writer's
// buffer of 32 KiB. All others are control frames: they leave at once and take
// what waits before them along.
//
// # Limits
//
//	plain payload of a stream frame     1 MiB (MaxPayload)
//	encoded payload of a bulk frame     1 MiB + 64 KiB
//	payload of a control frame          64 KiB
//	memory a Zstandard frame may ask    1 MiB
//	pages with data in one frame        128 (MaxPagesPerFrame)
//	message and hint of an error        4 KiB each
//	image name                          128 bytes
//
// A type or codec that is not known, reserved bytes other than 0, a length
// over its limit, a wrong checksum, packed bytes that do not yield exactly the
// plain length, a connection that ends inside a frame: each is a protocol
// error. The reader cannot find the next frame after it, so the connection is
// over. A connection may end only between frames; whether that is in order
// depends on the phase, because every stream has an explicit end of its own.
//
// # Versions
//
// Both sides send hello before they read anything:
//
//	{"magic":"vzkit","min_version":4,"max_version":4,
//	 "program":"vzmigrate 0.1","role":"sender","host_id":"…"}
//
// The version in force is the smaller max_version. If that is below either
// min_version, both sides give up and name the one to upgrade. The roles must
// differ. The layout of frames, hello and error never changes between
// versions; types are only added, and an added type comes with a new version,
// so an unknown one is an error and never skipped. Unknown JSON fields are
// ignored. The host identifiers let S notice that it talks to itself.
//
// # A migration
//
//	S (source, container runs)              R (destination)
//	hello               ------------------>
//	                    <------------------ hello
//	offer               ------------------>
//	                                        checks everything, prepares
//	                    <------------------ accept
//	                    <------------------ base-files …, base-end
//	files-begin 1       ------------------>
//	  file-entry, file-data, file-batch, file-delete …
//	files-end           ------------------>
//	                    <------------------ files-done
//	  … passes 2, 3, … while changes shrink
//	  memory …, with the mark of round 1
//	                    <------------------ round-done
//	  … rounds 2, 3, … while the predicted downtime is too long
//	[freezes the container]
//	memory-begin        ------------------>
//	  memory, pages and image, interleaved, then layout …
//	memory-end          ------------------>
//	files-begin n frozen------------------>
//	  file-entry, file-data, file-delete …
//	files-end           ------------------>
//	                                        restores, holds
//	                    <------------------ restored
//	[records the handover on disk]
//	packets, if there are any ------------>
//	commit              ------------------>
//	                                        resumes, announces addresses
//	                    <------------------ resumed
//	[kills what is left]                    puts files and config on disk
//	                    <------------------ settled
//	[removes its files]
//	finish              ------------------>
//	                                        forgets the move, ends
//
// Where the private area is an image, and R has said so in accept, the passes
// are blocks-begin, blocks-data and blocks-hole in any number, blocks-end, and
// are answered in the same way.
//
// A stopped container has no memory: its first pass is the frozen one. The
// frozen pass is answered by restored, or by an error.
//
// files-end carries the counts of its pass, memory-end those of images and
// pages; R compares them with what arrived and answers with error if they
// differ. A later run of pages replaces an earlier one at the same place.
//
// # Errors and lost connections
//
// Either side may send ping between any two other frames. It is empty, or has 8
// bytes: how many that side has read so far. S sends one at least every 5 seconds,
// so that R can tell a source that is busy from one that is gone without a word: R
// treats 30 seconds of silence as the end of the connection. R sends one for every
// 128 KiB that it has read, and S may keep from being too far ahead.
//
// Either side may send error in place of any frame. It is the last frame of
// that side, which then closes. A side that cannot write reads on first, up to
// the end of the connection: the reason may be there. A frame that the phase
// does not allow is answered with error of kind Protocol.
//
// Before commit S may give up with abort at any frame border after accept. R
// removes all it made and answers aborted, so S knows that the destination is
// clean. An error or an end of the connection has the same effect on R up to
// the moment it sends restored. From then on S may have made its record, and R
// cannot know: it holds the container, stopped and whole, until a new
// connection tells.
//
// The new connection starts with hello as ever, then:
//
//	S                                       R
//	attach {id}         ------------------>
//	                    <------------------ restored, if it holds the container
//	commit or abort     ------------------>
//	                    <------------------ resumed and settled, or aborted
//	finish, after settled ---------------->
//
// R answers attach with resumed at once if the container already runs, and
// with error of kind NoContainer if it knows no such move. An error in answer
// to commit means that R could not resume it yet and holds it on. An offer of
// a container that R holds for the same source shows that S has no record of
// that move: R calls its hold off. After the record S
// never resumes the container, whatever R answers or fails to answer; R never
// resumes it without commit.
//
// # Payloads
//
// "JSON" in the list of types is one object. Package files defines the frames
// of a file pass, files-begin to files-end; package blocks those of a pass over
// an image, blocks-begin to blocks-end; package memory defines memory, the
// pages that go over while the container runs; package migrate defines offer,
// accept, files-done and the rest of the handover. This package defines four:
//
// error, JSON:
//
//	{"kind":18,"message":"…","hint":"…"}     kind: fault.Kind
//
// hello, JSON: see above.
//
// pages, a run of 4096-byte pages of one address space:
//
//	offset  size  field
//	     0     1  space    1 memory of a task, 2 shared memory object
//	     1     3  reserved 0
//	     4     4  count    of pages; 0, with no flags, only announces that
//	                       there is such an address space
//	     8     4  flags    of CRIU's pagemap entry: 1 in the parent, 2 lazy,
//	                       4 present; others pass through
//	    12     8  id       the number CRIU gives the task or object
//	    20     8  address  in bytes, page-aligned; in an object its offset
//	    28     …  count × 4096 bytes if present is set (count then at most
//	              128), nothing otherwise
//
// The run must end below 2^64.
//
// image, a run of bytes of one CRIU image; runs of different images may
// alternate, those of one image arrive in order:
//
//	offset  size  field
//	     0     1  last     1 on the last run of this image, else 0
//	     1     1  n        length of the name
//	     2     n  name     [A-Za-z0-9][A-Za-z0-9._-]{0,127} without ".."
//	   2+n     …  bytes
//
// # History
//
//	1  first version
//	2  packets: those that came while the container stood still, each with
//	   its length in 4 bytes before it; join: more connections;
//	   memory: pages in rounds, before and in the freeze, by whoever tracks
//	   them; pages carries those that only CRIU has
//	3  files in batches, by blocks, and out of what the receiver has
//	4  blocks: an image as it is, in place of its files
package transport
