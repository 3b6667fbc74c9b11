package migrate

import (
	"context"
	"time"

	"github.com/vzkit/vzkit/lifecycle"
	"github.com/vzkit/vzkit/transport/files"
)

// Telling what is in a base must not take longer than sending would: it is
// stopped when so many bytes a second of what was offered have not been enough.
const (
	tellRate  = 100 << 20
	tellLeast = 5 * time.Second
)

// siblingsHelp bounds the bytes of a container of which a good part may be its
// template's, and so another container's, too.
const siblingsHelp = 2 << 30

// lend finds a base and begins to tell the source what is in it. A base that
// cannot be opened is none.
func (d *destination) lend(ctx context.Context) {
	limit := tellLeast + time.Duration(d.offer.Disk/tellRate)*time.Second
	var base *files.Base
	if d.way == byFiles {
		base = d.openBase(ctx)
	}
	d.basis = newBasis(ctx, d.conn, base, limit)
	d.undo.Push("close base", d.basis.close)
}

// hasBase tells whether there is likely to be a base that is worth more than the
// speed of blocks.
func (d *destination) hasBase() bool {
	for _, what := range []string{keptPartial, keptGone} {
		if findKept(d.host, d.c.ID, what) != nil {
			return true
		}
	}
	return d.offer.Disk < siblingsHelp && len(d.siblings()) > 0
}

// openBase opens what is most like the tree to come: what an earlier transfer
// of this container has brought, its files of when it left this host, or those
// of another container from the same template.
func (d *destination) openBase(ctx context.Context) *files.Base {
	for _, what := range []string{keptPartial, keptGone} {
		if k := findKept(d.host, d.c.ID, what); k != nil {
			if b, err := k.open(ctx); err == nil {
				return b
			}
		}
	}
	for _, c := range d.siblings() {
		if b, err := openSibling(ctx, c); err == nil && b != nil {
			return b
		}
	}
	return nil
}

// siblings are the containers here from the same template, those that are
// stopped first.
func (d *destination) siblings() (found []*lifecycle.Container) {
	if d.c.Template() == "" {
		return nil
	}
	all, _ := d.host.List() // one that cannot be read is no base
	var running []*lifecycle.Container
	for _, c := range all {
		switch {
		case c.ID == d.c.ID || c.Template() != d.c.Template():
		case c.Init() != 0:
			running = append(running, c)
		default:
			found = append(found, c)
		}
	}
	return append(found, running...)
}

// openSibling opens another container's files, or nothing if a command is at
// work on it. What it changes while it is a base is found out by sums.
func openSibling(ctx context.Context, c *lifecycle.Container) (*files.Base, error) {
	lock, err := c.Host().Lock(c.ID, "vzmigrate --receive")
	if err != nil {
		return nil, err
	}
	defer lock.Unlock()
	if err := c.CheckOwned(); err != nil {
		return nil, err
	}
	dir, release, err := c.Files(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	return files.OpenBase(dir)
}
