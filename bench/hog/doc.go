// Package hog is a program for containers that are measured: it keeps memory
// busy, can tell at any time whether a page of it was lost or mixed up, and
// notes how long it was not running.
//
// The memory is one anonymous mapping whose pages follow from their number
// and a version (see [Content]); a write makes the next version of a page
// chosen at random. "Every page is right, and the versions add up to the
// writes that were done" is what [Report.Check] holds, so that neither an old page nor a
// lost write goes unseen.
//
// A ticker reads two clocks every millisecond: CLOCK_REALTIME, which shows the
// time that a frozen container misses, and CLOCK_MONOTONIC, which in a
// container that was restored goes on where it stopped. Every 50 ms it notes
// how many writes were done.
//
// Two TCP ports are served: on [EchoPort] all that arrives is sent back; on
// [ControlPort] each line is a command whose answer is a line of JSON, see
// [Client]. Nothing is allocated while nobody asks, and the garbage collector is off:
// the memory that moves is that which was asked for.
package hog

// Ports of the container that are served.
const (
	EchoPort    = 7070
	ControlPort = 7071
)
