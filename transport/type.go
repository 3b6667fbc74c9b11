package transport

import "fmt"

// Type says what a frame carries. The numbers go over the wire; append only.
// The flow is described in the package comment. "JSON" is a small object,
// everything else is binary in network byte order.
type Type uint8

// Frame types, by the phase in which they travel. S is the sender (the source
// host), R the receiver (the destination).
const (
	TypeHello  Type = 1 // both, first: JSON Hello
	TypeError  Type = 2 // both, any time, last: JSON {kind, message, hint}
	TypeOffer  Type = 3 // S: JSON, what is to be moved
	TypeAccept Type = 4 // R: JSON, the offer passed every check and R is prepared
	TypePing   Type = 5 // both, any time: shows that the side lives, and what it has read; ReadFrame skips it

	TypeFilesBegin Type = 16 // S: JSON {pass, frozen}
	TypeFileEntry  Type = 17 // S: one directory entry with its metadata
	TypeFileData   Type = 18 // S: a run of bytes of the entry before it
	TypeFileDelete Type = 19 // S: a path that is gone
	TypeFilesEnd   Type = 20 // S: JSON {entries, bytes}: explicit end of the pass
	TypeFilesDone  Type = 21 // R: JSON, the pass is on disk
	TypeFileBatch  Type = 22 // S: small files of one directory, whole
	TypeFileCopy   Type = 23 // S: a run of the entry before it that another file has
	TypeFileHole   Type = 24 // S: a hole of the entry before it
	TypeFileAside  Type = 25 // S: a number, and a path that leaves the tree for now
	TypeFileBack   Type = 26 // S: a number, and the path where that comes to be
	TypeFileSign   Type = 27 // S: a number, and a file of the base to be signed
	TypeSignature  Type = 28 // R: a part of the signature with that number
	TypeBaseFiles  Type = 29 // R: files of a directory of the base, with their sums
	TypeBaseEnd    Type = 30 // R: JSON {files}: explicit end of the base

	TypeMemoryBegin Type = 32 // S: JSON, images and pages follow
	TypePages       Type = 33 // S: a run of pages of one address space
	TypeImage       Type = 34 // S: a run of bytes of one CRIU image
	TypeMemoryEnd   Type = 35 // S: JSON {images, pages}: explicit end of the state
	TypeMemory      Type = 36 // S: a batch of pages of tracked memory, or the mark of a round
	TypeRoundDone   Type = 37 // R: JSON {round}, all pages up to that mark are in R's store
	TypeLayout      Type = 38 // S: JSON, whose memory the spaces of memory frames are
	TypeJoin        Type = 39 // S: JSON {id, ctid}, on a new connection: it brings memory for that migration

	TypeRestored Type = 48 // R: the container is built and held, not yet running
	TypeCommit   Type = 49 // S: the handover is on S's disk, R owns the container
	TypeAbort    Type = 50 // S: the move is off, R cleans up
	TypeResumed  Type = 51 // R: JSON, the container runs
	TypeFinish   Type = 52 // S: S has let go of its copy
	TypeAborted  Type = 53 // R: R is clean again
	TypeAttach   Type = 54 // S: JSON {id}, on a new connection: finish an interrupted handover
	TypeSettled  Type = 55 // R: files and config are on R's disk
	TypePackets  Type = 56 // S: IP packets for the container that came while it stood still

	TypeBlocksBegin Type = 64 // S: JSON {pass, frozen, size}
	TypeBlocksData  Type = 65 // S: blocks of an image with content
	TypeBlocksHole  Type = 66 // S: blocks of an image that are a hole
	TypeBlocksEnd   Type = 67 // S: JSON {data, holes}: explicit end of the pass
)

var typeNames = map[Type]string{
	TypeHello: "hello", TypeError: "error", TypeOffer: "offer", TypeAccept: "accept", TypePing: "ping",
	TypeFilesBegin: "files-begin", TypeFileEntry: "file-entry", TypeFileData: "file-data",
	TypeFileDelete: "file-delete", TypeFilesEnd: "files-end", TypeFilesDone: "files-done",
	TypeFileBatch: "file-batch", TypeFileCopy: "file-copy", TypeFileHole: "file-hole", TypeFileAside: "file-aside", TypeFileBack: "file-back",
	TypeFileSign: "file-sign", TypeSignature: "file-signature", TypeBaseFiles: "base-files", TypeBaseEnd: "base-end",
	TypeMemoryBegin: "memory-begin", TypePages: "pages", TypeImage: "image",
	TypeMemoryEnd: "memory-end", TypeMemory: "memory", TypeRoundDone: "round-done", TypeLayout: "layout", TypeJoin: "join",
	TypeRestored: "restored", TypeCommit: "commit", TypeAbort: "abort",
	TypeResumed: "resumed", TypeFinish: "finish", TypeAborted: "aborted", TypeAttach: "attach",
	TypeSettled: "settled", TypePackets: "packets",
	TypeBlocksBegin: "blocks-begin", TypeBlocksData: "blocks-data", TypeBlocksHole: "blocks-hole", TypeBlocksEnd: "blocks-end",
}

// String is the name the package comment uses, or "type 77" for an unknown one.
func (t Type) String() string {
	if name, ok := typeNames[t]; ok {
		return name
	}
	return fmt.Sprintf("type %d", uint8(t))
}

// bulk frames may be packed.
func (t Type) bulk() bool {
	switch t {
	case TypePages, TypeImage, TypeFileData, TypeFileBatch, TypeSignature, TypeBaseFiles, TypeMemory, TypeBlocksData:
		return true
	}
	return false
}

// stream frames may wait in the write buffer; all others are control frames.
func (t Type) stream() bool {
	switch t {
	case TypeFileEntry, TypeFileDelete, TypeFileCopy, TypeFileHole, TypeFileAside, TypeFileBack, TypePackets, TypeBlocksHole:
		return true
	}
	return t.bulk()
}

// checkPlain refuses unknown types and plain payloads over their limit.
func (t Type) checkPlain(length uint64) error {
	limit := uint64(MaxPayload)
	if !t.stream() {
		limit = maxControl
	}
	switch _, known := typeNames[t]; {
	case !known:
		return malformed(t, "not known")
	case length > limit:
		return malformed(t, "%d bytes exceed %d", length, limit)
	}
	return nil
}
