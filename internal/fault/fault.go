// Package fault gives errors a small Kind that survives the wire and becomes
// an exit code in exactly one place.
//
// A Kind says what sort of thing went wrong, never how: the error text does
// that. Kinds are append-only, because both ends of a migration exchange them
// and may be of different releases.
package fault

import (
	"errors"
	"fmt"
)

// Kind classifies an error for programs: peers and scripts. The numbers go
// over the wire; do not reorder, append only.
type Kind uint16

// The kinds. The comment of each names the OpenVZ situation it answers to.
const (
	Other       Kind = iota // anything that has no kind of its own
	Usage                   // wrong command line
	BadValue                // an argument or config value that cannot be used
	NoContainer             // CTID or NAME does not exist
	NotRunning              // needs a running container
	Running                 // needs a stopped container
	Mounted                 // needs an unmounted container
	NotMounted              // needs a mounted container
	Locked                  // another command holds the container
	Exists                  // container, private area or name is already there
	NoTemplate              // OS template is missing or damaged
	Connect                 // no SSH session: unreachable, refused, host key, login
	Copy                    // files did not arrive
	Restore                 // the destination could not start or restore
	Checkpoint              // the source could not freeze or dump
	AddressUsed             // an IP address is in use at the destination
	NoEngine                // CRIU or a kernel feature is missing
	NoSpace                 // disk or tmpfs is too small or full
	Protocol                // a frame that is corrupt, truncated, oversized or out of order
	Interrupted             // SIGINT or SIGTERM
	SameHost                // source and destination are one machine
	Permission              // needs root or a capability
	Command                 // a command inside the container failed
	Cgroup                  // cgroup or resource limits could not be applied
	Network                 // addresses, links or routes could not be set
	Mount                   // a file system could not be mounted
	Unmount                 // a file system could not be unmounted
	Config                  // a configuration file is unreadable or wrong
	Disabled                // the container is disabled
	Undelivered             // handed over, but the destination has not confirmed yet
	Stop                    // the container did not stop
	TooSlow                 // memory changes faster than it can be sent
	NoImages                // no loop devices, no ext4 or no e2fsprogs
	ImageCreate             // an image of a file system could not be made
	ImageMount              // an image could not be mounted: missing, damaged, in use
	ImageUmount             // an image could not be unmounted
	ImageResize             // an image could not be made larger or smaller
	Convert                 // a private area could not get another layout
	Compact                 // an image's free space could not be given back
)

// Error is an error with a Kind and, where one helps, a hint: a full sentence
// that says what to do about it.
type Error struct {
	Kind Kind
	Err  error
	Hint string
}

func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the error underneath.
func (e *Error) Unwrap() error { return e.Err }

// New returns an error of kind k. The format is fmt.Errorf's, %w included.
func New(k Kind, format string, args ...any) *Error {
	return &Error{Kind: k, Err: fmt.Errorf(format, args...)}
}

// Wrap gives err the kind k unless it carries a kind already. Nil stays nil.
func Wrap(k Kind, err error) error {
	if err == nil {
		return nil
	}
	var has *Error
	if errors.As(err, &has) {
		return err
	}
	return &Error{Kind: k, Err: err}
}

// WithHint sets the hint and returns e.
func (e *Error) WithHint(format string, args ...any) *Error {
	e.Hint = fmt.Sprintf(format, args...)
	return e
}

// KindOf returns the kind of the first Error in err's chain, or Other.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return Other
}

// HintOf returns the hint of the first Error in err's chain, or "".
func HintOf(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Hint
	}
	return ""
}
