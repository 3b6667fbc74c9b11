// Package memory takes pages of tracked memory over connections of package
// transport, in as few bytes as their content allows: while the container runs,
// round after round, and at the end while it stands still.
//
// The [Sender] is given runs of pages, named by space and address as their
// tracker does (a space is the memory of one process, or one shared object),
// and the [Receiver] puts them in a [Store] in the order in which they were
// given. There is one Receiver for each connection, and they share the store.
//
// # Kinds of pages
//
//	raw        4096 bytes in the frame
//	zero       nothing; whole runs of them, of any length
//	reference  the content of another page at the receiver, as it is by then
//	delta      what differs from the content the receiver has at that place
//	same       the receiver has it: not sent
//
// The sender keeps, in bounded tables, the hash of what the receiver has at each
// place, and the content of the places written often. A reference names a place
// whose hash is that of the page; as soon as anything else goes to that place,
// its hash is another. What falls out of a table goes raw when it comes again.
//
// Hashes are XXH3 of 128 bits with a seed drawn for each sender, which nobody
// in the container knows. Equal hashes of different pages are not to be
// expected in any number of pages that fits a host; XXH3 is not cryptographic,
// but whoever forges one can only reach other pages of his own container. In
// references it would still be noticed: see the mark below.
//
// # Streams
//
// With several connections a page belongs to the one that its address selects,
// 1 MiB to each in turn. So the order of what is sent for one place is kept, and
// forked memory, at equal addresses, stays on one connection, where references
// can name it. A reference names places of its own connection only.
//
// # Payload
//
// A frame of type memory begins with one byte: 1 a batch, 2 a mark. Numbers of
// fixed size are big endian; "varint" is the unsigned LEB128 of encoding/binary.
//
//	offset  size  field of a batch
//	     0     1  1
//	     1     4  r, length of the runs
//	     5     4  d, length of the patches
//	     9     r  runs
//	   9+r     d  patches, of the delta pages in order
//	 9+r+d     …  raw pages in order, 4096 bytes each
//
// Places are counted in pages. Each run is
//
//	varint  count << 3 | moved << 2 | kind    kind: 0 raw, 1 zero, 2 reference, 3 delta
//	place   of the first page, if moved is set; else the run begins where the
//	        one before it ended (the first: space 0, page 0)
//	place   of the first page referred to, in a run of references, relative to
//	        the end of the last one referred to
//
// A place relative to another is varint zigzag(page - other page) << 1 | s, and
// if s is set varint space, its bits rotated left by one; else it is the space
// of the other. A run of references acts page by page. Runs end at most at page
// 2^52; a count is below 2^32; a batch has at most 8192 pages that are not zero.
//
// A patch is varint length, then as many bytes of steps, which begin at offset 0
// of the page: varint skip << 2 | n, where n of 0 to 2 stands for n+1 new bytes
// and 3 for 4 plus another varint; then the new bytes.
//
//	offset  size  field of a mark
//	     0     1  1 byte, 2
//	     1     8  number, above that of the mark before
//	     9     8  pages of all batches so far
//	    17     4  CRC-32C of the content of all reference and delta pages so far
//
// The receiver compares the counts and the checksum with its own: what it made
// of references and deltas is what the sender had.
package memory
