// Package pace keeps a transfer from taking all of a link, a disk or the
// processors.
//
// A Limiter is a rate in bytes per second that any number of writers share. In
// any time t no more than rate*t bytes go out, plus one burst after a rest: what
// the rate gives in 20 ms, at least 4 KiB and at most 1 MiB, so that both
// 64 KiB/s and 1 Gbit/s run in small steps. SetLimit takes effect at once, also
// for writers that wait: a frozen pass need not sit out a limit. What is counted
// are the bytes that a Writer is given; SSH and TCP add a few per cent.
//
// Polite makes room for others on disk and processors.
//
// Errors: ParseLimit fault.BadValue, a Writer whose context ends
// fault.Interrupted; others are those of what is written to.
package pace
