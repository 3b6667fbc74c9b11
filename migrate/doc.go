// Package migrate moves a container from this host to another one: Send is the
// source's side, Receive the destination's, and between them is one
// transport.Conn. A container that runs is moved running.
//
// What happens, in order, with the side that does it:
//
//	both  check everything that can be checked before anything is changed
//	S     sends the private area while the container runs, then what changed
//	S     sends memory in rounds, what was written meanwhile in the next one
//	S     freezes it and holds its network; from here it stands still
//	S     sends the last pages and CRIU's images, then what changed in the files
//	R     restores it, frozen, without network, its memory at hand
//	S     writes the handover record (lifecycle.Handover): ownership moves
//	R     adopts files and config, thaws, announces the addresses
//	S     kills what is left, its traffic still held, and removes its files
//
// Before the record every failure ends with the container running at the
// source as before and nothing at the destination. After it the source never
// runs the container again: it delivers the decision, over a new connection if
// it has to, and the destination keeps the restored container, frozen, until
// it hears.
//
// # Areas
//
// The files arrive in an area of the layout that the destination is to have,
// in a staging directory beside the private area, and are adopted by a rename.
// Where -r no had left the private area of an earlier stay, the two change
// places in one step. Such an area, what --keep-dst has left of an attempt that
// failed, or a container from the same template is the base that package files
// makes files of. A base is never written, and gone once the container is here
// only if it was kept for that.
//
// An image that stays one comes as it is, by blocks (package blocks), where there
// is no such base and the source can tell which blocks are written. It can be
// mounted only when all of it is there: that is a part of the downtime.
//
// The package does not know how pages are found or encoded.
package migrate
