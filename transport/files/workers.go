package files

import (
	"errors"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// maxOutstanding bounds the bytes of batches that wait or are being written.
const maxOutstanding = 4 << 20

// errStopped ends the work of a pass that has an error elsewhere.
var errStopped = errors.New("pass is over")

// parcel is one batch on its way to the disk.
type parcel struct {
	dir     *level
	payload []byte // the records
	reads   bool   // some come from other files of the tree
	careful bool   // a job before it reads what this one may replace
	entries uint64
	bytes   uint64
	done    bool
}

// pool has batches written beside the receiving goroutine, which alone calls
// add, find, leave, settle, barrier and stop. Jobs start in order and end in
// any order, so no two of them may mean the same path; one that replaces a
// directory waits for those before it. The first error ends them all.
type pool struct {
	writer func() *writer // a new one
	limit  int            // of goroutines

	mu      sync.Mutex
	changed sync.Cond         // some job has ended, or all are to
	work    sync.Cond         // there is a job to be taken, or no more comes
	jobs    []*parcel         // outstanding, in order
	next    int               // the first of them that has not started
	bytes   int               // in jobs
	readers int               // of them read the tree
	busy    map[fileID]*level // with jobs, or being finished
	spare   [][]byte
	stats   Stats
	err     error
	quit    bool
	started int
	running sync.WaitGroup
}

func newPool(writer func() *writer) *pool {
	p := &pool{writer: writer, limit: max(2, runtime.GOMAXPROCS(0)), busy: make(map[fileID]*level)}
	p.changed.L, p.work.L = &p.mu, &p.mu
	return p
}

// add has the records written into the directory f, which is open as dir. It
// waits while there is too much to do already.
func (p *pool) add(f *level, dir int, records []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.err == nil && len(p.jobs) > 0 && (p.bytes+len(records) > maxOutstanding || len(p.jobs) >= 4*p.limit) {
		p.changed.Wait()
	}
	if p.err != nil {
		return p.err
	}
	if err := p.hold(f, dir); err != nil {
		return err
	}
	j := &parcel{dir: f, reads: readsTree(records), careful: p.readers > 0}
	j.payload = append(p.buffer(), records...)
	if j.reads {
		p.readers++
	}
	p.bytes += len(records)
	p.jobs = append(p.jobs, j)
	if p.started < p.limit {
		p.started++
		p.running.Go(func() { p.run(p.writer()) })
	}
	p.work.Signal()
	return nil
}

// hold counts one more job of f and gives it a descriptor of its own.
func (p *pool) hold(f *level, dir int) (err error) {
	if f.jobs == 0 {
		if f.fd, err = unix.FcntlInt(uintptr(dir), unix.F_DUPFD_CLOEXEC, 0); err != nil {
			return err
		}
		p.busy[f.id] = f
	}
	f.jobs++
	return nil
}

func (p *pool) buffer() []byte {
	last := len(p.spare) - 1
	if last < 0 {
		return nil
	}
	b := p.spare[last]
	p.spare = p.spare[:last]
	return b
}

// run is one goroutine's life.
func (p *pool) run(w *writer) {
	w.owner.adoptThread()
	for j := p.take(); j != nil; j = p.take() {
		err := p.failed()
		if err == nil {
			err = w.batch(j)
		}
		p.fail(err)
		p.release(w, j)
		p.end(j)
	}
}

func (p *pool) take() *parcel {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.next == len(p.jobs) && !p.quit {
		p.work.Wait()
	}
	if p.next == len(p.jobs) {
		return nil
	}
	p.next++
	return p.jobs[p.next-1]
}

// release lets go of the directory of j; the last job in one that the pass has
// left finishes it.
func (p *pool) release(w *writer, j *parcel) {
	f := j.dir
	p.mu.Lock()
	defer p.mu.Unlock()
	if f.jobs--; f.jobs > 0 {
		return
	}
	if f.left && p.err == nil {
		p.mu.Unlock()
		err := w.finish(f, f.fd)
		p.fail(err)
		p.mu.Lock()
	}
	p.forget(f)
}

// forget closes f, which has no jobs.
func (p *pool) forget(f *level) {
	unix.Close(f.fd)
	f.fd = -1
	delete(p.busy, f.id)
	p.changed.Broadcast()
}

// end takes j, which is done, off the list.
func (p *pool) end(j *parcel) {
	p.mu.Lock()
	defer p.mu.Unlock()
	j.done = true
	p.bytes -= len(j.payload)
	if j.reads {
		p.readers--
	}
	p.stats.Entries += j.entries
	p.stats.Bytes += j.bytes
	if len(p.spare) < 2*p.limit {
		p.spare = append(p.spare, j.payload[:0])
	}
	for len(p.jobs) > 0 && p.jobs[0].done {
		p.jobs[0] = nil
		p.jobs = p.jobs[1:]
		p.next--
	}
	p.changed.Broadcast()
}

// fail notes the first error; there is no work after it.
func (p *pool) fail(err error) {
	if err == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil {
		p.err = err
	}
	p.changed.Broadcast()
}

func (p *pool) failed() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// turn waits until all jobs before j are done.
func (p *pool) turn(j *parcel) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.err == nil && p.jobs[0] != j {
		p.changed.Wait()
	}
	return p.err
}

// barrier waits until all jobs are done.
func (p *pool) barrier() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.jobs) > 0 {
		p.changed.Wait()
	}
	return p.err
}

// settle waits until all jobs in the directory id are done.
func (p *pool) settle(id fileID) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.busy[id] != nil {
		p.changed.Wait()
	}
	return p.err
}

// find returns the directory id if it has jobs although the pass has left it:
// the receiving goroutine has it back.
func (p *pool) find(id fileID) *level {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		f := p.busy[id]
		if f == nil || f.jobs > 0 {
			if f != nil {
				f.left = false
			}
			return f
		}
		p.changed.Wait() // being finished
	}
}

// leave reports whether f has jobs, the last of which is to finish it.
func (p *pool) leave(f *level) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	f.left = true
	return f.jobs > 0
}

// stop ends all goroutines. If the pass is not complete, what waits is dropped.
func (p *pool) stop(complete bool) {
	if !complete {
		p.fail(errStopped)
	}
	p.mu.Lock()
	p.quit = true
	p.work.Broadcast()
	p.mu.Unlock()
	p.running.Wait()
}
