// Package version says which build of vzkit is running.
package version

// String is what `git describe --always --dirty` said of the sources; the
// linker sets it (see the Makefile).
var String = "dev"
