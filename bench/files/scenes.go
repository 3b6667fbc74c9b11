package files

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vzkit/vzkit/bench/hosts"
)

// debianScene is a stopped container of Debian.
type debianScene struct{ *stage }

func newDebian(s *stage) scene { return &debianScene{s} }

func (d *debianScene) set(ctx context.Context) error {
	if err := d.create(ctx, hosts.Debian); err != nil {
		return err
	}
	return warm(d.on(hosts.Alpha, private))
}

func (d *debianScene) run(ctx context.Context, n int) ([]Run, error) {
	return turns(n, func() ([]Run, error) { return d.ours(ctx, n) }, func() ([]Run, error) {
		run := Run{Case: debianCold, Mover: peer, Number: n}
		r, err := d.fresh(ctx)
		run.synced(r)
		return []Run{run}, errors.Join(err, d.dropCopy(ctx))
	})
}

func (d *debianScene) ours(ctx context.Context, n int) ([]Run, error) {
	run := Run{Case: debianCold, Mover: vzkit, Number: n}
	a, link, err := d.move(ctx, hosts.Alpha, hosts.Beta)
	if err != nil {
		return nil, err
	}
	run.took(a, a.files(), link)
	if err := same(ctx, d.on(hosts.Alpha, private), d.on(hosts.Beta, private), nil); err != nil {
		return nil, err
	}
	return []Run{run}, d.giveBack(ctx)
}

// smallScene is a running container with many small files that nobody changes:
// the first pass finds all of them new, the second nothing changed.
type smallScene struct {
	*stage
	tree tree
}

// smallLimit is the size of the largest small file.
const smallLimit = 8 << 10

func smallTree(s *stage, files int) tree { return tree{s.scaled(files, 2*hotFiles), smallLimit} }

func newSmall(s *stage) scene { return &smallScene{s, smallTree(s, manySmall)} }

func (m *smallScene) set(ctx context.Context) error {
	if err := m.create(ctx, hosts.Minimal); err != nil {
		return err
	}
	if err := m.makeTree(ctx, m.tree, within); err != nil {
		return err
	}
	return warm(m.on(hosts.Alpha, private))
}

func (m *smallScene) run(ctx context.Context, n int) ([]Run, error) {
	return turns(n, func() ([]Run, error) { return m.ours(ctx, n) }, func() ([]Run, error) { return m.peers(ctx, n) })
}

func (m *smallScene) ours(ctx context.Context, n int) ([]Run, error) {
	if err := m.start(ctx); err != nil {
		return nil, err
	}
	a, link, err := m.move(ctx, hosts.Alpha, hosts.Beta)
	if err != nil {
		return nil, err
	}
	second, err := a.second()
	if err != nil {
		return nil, err
	}
	cold := Run{Case: smallCold, Mover: vzkit, Number: n, Files: m.tree.files}
	again := cold
	again.Case = smallUnchanged
	cold.took(a, a.passes()[0], link)
	again.took(a, second, 0)
	return []Run{cold, again}, m.arrived(ctx, nil)
}

func (m *smallScene) peers(ctx context.Context, n int) ([]Run, error) {
	cold := Run{Case: smallCold, Mover: peer, Number: n, Files: m.tree.files}
	again := cold
	again.Case = smallUnchanged
	first, err := m.fresh(ctx)
	if err != nil {
		return nil, err
	}
	second, err := m.again(ctx)
	if err != nil {
		return nil, err
	}
	cold.synced(first)
	again.synced(second)
	return []Run{cold, again}, m.dropCopy(ctx)
}

// frozenScene is a running container with many small files, a hundred of which
// a program rewrites all the time.
type frozenScene struct {
	smallScene
	copied bool // rsync has been there before
}

// rewriteEvery is how often the program rewrites each of its files.
// It is less than there is between the pass before the freeze and that, so
// that all of them have changed.
const rewriteEvery = 20 * time.Millisecond

// frozenTries is how often a move is made for one whose frozen pass had that many
// files to send.
const frozenTries = 5

func newFrozen(s *stage, files int) scene {
	return &frozenScene{smallScene: smallScene{s, smallTree(s, files)}}
}

// rewriter is the program, as seen from a host.
func (f *frozenScene) rewriter(host string) Rewriter {
	return Rewriter{Dir: f.on(host, private+"/"+within), Files: f.tree.files, Every: rewriteEvery}
}

func (f *frozenScene) run(ctx context.Context, n int) ([]Run, error) {
	if !f.copied {
		if _, err := f.fresh(ctx); err != nil {
			return nil, err
		}
		f.copied = true
	}
	return turns(n, func() ([]Run, error) { return f.ours(ctx, n) }, func() ([]Run, error) { return f.peers(ctx, n) })
}

func (f *frozenScene) ours(ctx context.Context, n int) ([]Run, error) {
	for range frozenTries {
		run := Run{Case: frozen100, Mover: vzkit, Number: n, Files: f.tree.files}
		sent, err := f.once(ctx, &run)
		if err != nil || sent >= hotFiles {
			return []Run{run}, err
		}
	}
	return nil, fmt.Errorf("fewer than %d files changed before the freeze, %d times", hotFiles, frozenTries)
}

// once is one move; sent is how many files its frozen pass had to send.
func (f *frozenScene) once(ctx context.Context, run *Run) (sent uint64, err error) {
	if err := f.begin(ctx); err != nil {
		return 0, err
	}
	a, link, err := f.move(ctx, hosts.Alpha, hosts.Beta)
	if err != nil {
		return 0, err
	}
	frozen, err := a.frozen()
	if err != nil {
		return 0, err
	}
	run.took(a, frozen.MS, link)
	return frozen.Entries, f.arrived(ctx)
}

// begin starts container and program, and waits until all is changing.
func (f *frozenScene) begin(ctx context.Context) error {
	if err := f.start(ctx); err != nil {
		return err
	}
	err := f.Sh(ctx, hosts.Alpha, `vzctl exec2 CTID 'setsid vzbench rewrite --dir DIR --files NUMBER --every EVERY </dev/null >/dev/null 2>&1 &'`,
		"CTID", ctid, "DIR", "/"+within, "NUMBER", fmt.Sprint(f.tree.files), "EVERY", rewriteEvery.String())
	if err != nil {
		return err
	}
	before, _ := f.rewriter(hosts.Alpha).rounds()
	for end := time.Now().Add(time.Minute); time.Now().Before(end) && ctx.Err() == nil; time.Sleep(rewriteEvery) {
		now, err := f.rewriter(hosts.Alpha).rounds()
		if err == nil && changed(before, now) {
			return nil
		}
		if err == nil && before == nil {
			before = now
		}
	}
	return errors.New("files are not rewritten")
}

// changed tells whether all files are of another round.
func changed(before, now []uint64) bool {
	for i := range before {
		if before[i] == now[i] {
			return false
		}
	}
	return before != nil
}

// arrived checks what came to beta. Of the rewritten files, the program may
// have gone on: each must be whole, and not older than what the source has.
func (f *frozenScene) arrived(ctx context.Context) error {
	left, err := f.rewriter(hosts.Alpha).rounds()
	if err != nil {
		return fmt.Errorf("at the source: %w", err)
	}
	came, err := f.rewriter(hosts.Beta).rounds()
	if err != nil {
		return fmt.Errorf("at the destination: %w", err)
	}
	for i := range left {
		if came[i] < left[i] {
			return fmt.Errorf("rewritten file %d is of round %d at the destination, %d at the source", i, came[i], left[i])
		}
	}
	return f.smallScene.arrived(ctx, f.rewriter(hosts.Alpha).hot())
}

func (f *frozenScene) peers(ctx context.Context, n int) ([]Run, error) {
	time.Sleep(sameSecond)
	if err := f.rewriter(hosts.Alpha).round(uint64(time.Now().UnixNano())); err != nil {
		return nil, err
	}
	run := Run{Case: frozen100, Mover: peer, Number: n, Files: f.tree.files}
	r, err := f.again(ctx)
	run.synced(r)
	return []Run{run}, err
}
