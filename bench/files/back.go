package files

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/vzkit/vzkit/bench/hosts"
)

// backScene is a stopped container that moves to and fro. Each host keeps the
// private area as it was when it left there, which is the base when it comes
// back, changed meanwhile.
type backScene struct {
	*stage
	template string
	fill     func(context.Context) error
	changes  []change
	at       string // where the container is
}

// change is what happens to the private area between two moves.
type change struct {
	name string // of the case
	do   func(area string, run int) error
	more []string // options of rsync
}

const bigFile = "srv/big"

func newBig(s *stage) scene {
	changes := []change{
		{bigRewritten, func(area string, run int) error {
			return rewriteBlocks(filepath.Join(area, bigFile), random(ofChange, run))
		}, []string{"--no-whole-file"}},
		{bigInserted, func(area string, run int) error {
			uid, gid, err := owner(area)
			if err != nil {
				return err
			}
			return insert(filepath.Join(area, bigFile), mib, random(ofChange, -run), uid, gid)
		}, []string{"--no-whole-file"}},
	}
	fill := func(ctx context.Context) error {
		if err := s.writeOnce(ctx, 3*int64(s.scaled(bigSize, mib))); err != nil {
			return err
		}
		dir, uid, gid, err := s.makeDir(filepath.Dir(bigFile))
		if err != nil {
			return err
		}
		return writeRandom(filepath.Join(dir, filepath.Base(bigFile)), int64(s.scaled(bigSize, mib)), uid, gid)
	}
	return &backScene{stage: s, template: hosts.Minimal, fill: fill, changes: changes}
}

// writeOnce writes so many bytes of both disks and frees them again. What was
// never written takes several times as long as what was, and whoever goes first
// would wait for that.
func (s *stage) writeOnce(ctx context.Context, bytes int64) error {
	for _, host := range []string{hosts.Alpha, hosts.Beta} {
		err := s.Sh(ctx, host, "head -c BYTES /dev/zero >STATE/once; sync -f STATE; rm STATE/once; sync -f STATE",
			"BYTES", fmt.Sprint(bytes), "STATE", state)
		if err != nil {
			return err
		}
	}
	return nil
}

func newMovedBack(s *stage) scene {
	changes := []change{{name: movedBack, do: func(area string, run int) error {
		return changePercent(area, random(ofChange, run))
	}}}
	return &backScene{stage: s, template: hosts.Debian, fill: func(context.Context) error { return nil }, changes: changes}
}

func (b *backScene) set(ctx context.Context) error {
	if err := b.create(ctx, b.template); err != nil {
		return err
	}
	if err := b.fill(ctx); err != nil {
		return fmt.Errorf("fill container: %w", err)
	}
	_, _, err := b.move(ctx, hosts.Alpha, hosts.Beta)
	b.at = hosts.Beta
	return err
}

func (b *backScene) run(ctx context.Context, n int) (all []Run, err error) {
	for _, c := range b.changes {
		if !b.has(c.name) {
			continue
		}
		runs, err := b.back(ctx, c, n)
		if err != nil {
			return all, fmt.Errorf("%s: %w", c.name, err)
		}
		all = append(all, runs...)
	}
	return all, nil
}

// back changes the container and moves it to where it was before. rsync gets a
// copy of what is there to begin with.
func (b *backScene) back(ctx context.Context, c change, n int) ([]Run, error) {
	from, to := b.at, hosts.Alpha
	if from == to {
		to = hosts.Beta
	}
	time.Sleep(sameSecond)
	if err := c.do(b.on(from, private), n); err != nil {
		return nil, fmt.Errorf("change container: %w", err)
	}
	disk, err := b.copyOld(ctx, to)
	if err != nil {
		return nil, err
	}
	files, err := regular(b.on(from, private))
	if err != nil {
		return nil, err
	}
	run := Run{Case: c.name, Number: n, Content: total(files), Disk: disk}
	ours := func() ([]Run, error) { return b.ours(ctx, run, from, to) }
	peers := func() ([]Run, error) { return b.peers(ctx, run, from, to, c.more) }
	return turns(n, ours, peers)
}

// copyOld copies the private area that a host has kept, and tells how long
// that took with all of it on disk.
func (b *backScene) copyOld(ctx context.Context, host string) (ms float64, err error) {
	if err := b.settle(); err != nil {
		return 0, err
	}
	begin := time.Now()
	err = b.Sh(ctx, host, "rm -rf COPIED; cp -a --reflink=never PRIVATE COPIED; sync -f COPIED", "COPIED", copied, "PRIVATE", private)
	return millis(time.Since(begin)), err
}

func (b *backScene) ours(ctx context.Context, run Run, from, to string) ([]Run, error) {
	a, link, err := b.move(ctx, from, to)
	if err != nil {
		return nil, err
	}
	b.at, run.Mover = to, vzkit
	run.took(a, a.files(), link)
	return []Run{run}, same(ctx, b.on(from, private), b.on(to, private), nil)
}

func (b *backScene) peers(ctx context.Context, run Run, from, to string, more []string) ([]Run, error) {
	r, err := b.rsync(ctx, from, to, more...)
	if err != nil {
		return nil, err
	}
	run.Mover = peer
	run.synced(r)
	if err := same(ctx, b.on(from, private), b.on(to, copied), nil); err != nil {
		return nil, err
	}
	return []Run{run}, b.Sh(ctx, to, "rm -rf COPIED", "COPIED", copied)
}
