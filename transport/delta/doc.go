// Package delta finds in a new file what an old file on another host already
// has, without having both: the idea of rsync (A. Tridgell, "Efficient
// Algorithms for Sorting and Synchronization", 1999, chapter 3).
//
// Who has the old file makes its [Signature]: a short sum of every block. Who
// has the new one lets [Signature.Match] split it into runs that are copies of
// parts of the old file, and runs of new data.
//
// # Blocks
//
// All follows from the size of the old file. Its blocks, all but the last, are
// of 4 KiB; from 512 MiB on of as much more, up to 32 KiB, as keeps them at or
// below 2^17; from 32 GiB on of as much more, up to 1 MiB, as keeps them at or
// below 2^20. What is beyond 1 TiB is not signed. Small blocks lose less new data
// around a change; but the signature must travel, and should be little beside
// the one change that a large file may have.
//
// Each block has a strong sum: the first 5 bytes of its XXH3 of 64 bits, with a
// seed that is drawn for each signature, the salt. So a false match in a file of
// 2^20 changed blocks has a chance of 2^-20, and who does not know the salt cannot
// aim at one. XXH3 goes as fast as memory can be read, six times as fast as BLAKE3,
// which took half the time of a match. A receiver must check what it copies:
// [Run.Sum] is for that.
//
// # Finding what moved
//
// Every block, or every fourth where there are more than 2^14, also has a weak
// sum, of its first 256 bytes:
//
//	T[b0]·5^255 + T[b1]·5^254 + … + T[b255], of 2^64 the upper 32 bits
//
// with T from splitmix64 (Steele, Lea, Flood, "Fast Splittable Pseudorandom
// Number Generators", 2014) started at 0. It rolls at a few cycles a byte. Where
// it is that of a block, the strong sum decides; the blocks between those with
// weak sums are found by their neighbours.
//
// Most changes move nothing, so the block that the last match leads to and the
// block at the same offset are tried first, by the strong sum alone. If both
// differ, the block after that is tried, and only then the weak sum is rolled.
// Data where many places look alike costs matches rather than time: after a few
// failed strong sums, the rest of a block's length is not looked at.
//
// # Signature
//
// Numbers are big endian. Nothing at all is the signature of no file. Else:
//
//	8  size of what is signed, 1 to 2^40
//	8  salt
//	   then for each block:
//	4  weak sum, of the blocks that have one
//	5  strong sum
//
// A block shorter than 256 bytes has 0 in place of a weak sum.
//
// Sizes and offsets are in bytes. Memory: a signature takes at most
// [MaxEncoded] bytes, 6 MiB, and the tables to match with it 4 MiB more; one Sign
// or Match takes 2 MiB and a block for each core, of which it uses at most 8, and
// for two more.
package delta
