// Package test is vzkit's integration suite: the programs of bin/, run as a
// user would, between hosts of a lab with real sshd, CRIU and containers.
//
// `make test` builds bin/ and runs it as root. The lab is the suite's own and
// leaves that of the command line alone. Its hosts come in pairs, source and
// destination; a test takes a pair, may do to these hosts what it likes, and
// hands them back clean, which is checked.
package test
