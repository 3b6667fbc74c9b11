package files

import (
	"context"
	"runtime"
	"sync"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/transport"
	"github.com/vzkit/vzkit/transport/pack"
)

// ahead bounds the jobs between the scanner and the wire, each with at most
// about chunkSize of content and what describes it.
const ahead = 24

// pipeline reads and packs on all cores what a pass sends, and writes it in the
// order in which it was asked for.
type pipeline struct {
	w        FrameWriter
	packed   packedWriter // w, if it takes packed frames
	link     pack.Link
	progress func(Stats)

	parent context.Context
	ctx    context.Context
	cancel context.CancelCauseFunc
	todo   chan *job // for the workers
	order  chan *job // for the wire
	free   chan *job
	ends   sync.WaitGroup
	stats  Stats // of what was written; after the end

	written func(*job) // called with each job before it is used again
}

// packedWriter is the part of transport.Conn that packs on other cores, as suits
// the link.
type packedWriter interface {
	transport.Busier
	WriteEncoded(t transport.Type, codec transport.Codec, plain int, parts ...[]byte) error
}

// job is some frames that follow one another.
type job struct {
	work func(w *worker, j *job) error // fills in the frames; nil: they are there
	out  []outFrame
	buf  []byte // that out points into
	wire []byte // packed
	stat Stats
	err  error

	results []result
	done    chan struct{}
}

// outFrame is one frame, by where its payload ends in the job's buffer.
type outFrame struct {
	typ         transport.Type
	codec       transport.Codec
	seen        bool // a worker has decided whether to pack it
	end, packed int  // packed: where it ends in the job's wire; 0 if it is not
}

func newPipeline(ctx context.Context, w FrameWriter, o PassOptions) *pipeline {
	p := &pipeline{w: w, progress: o.Progress, todo: make(chan *job, ahead), order: make(chan *job, ahead), free: make(chan *job, ahead+2)}
	p.packed, _ = w.(packedWriter)
	p.parent, p.written = ctx, func(*job) {}
	p.ctx, p.cancel = context.WithCancelCause(ctx)
	for range cap(p.free) {
		p.free <- &job{}
	}
	for range max(2, runtime.GOMAXPROCS(0)) {
		k := newWorker(p.packer(o.Codec))
		p.ends.Go(func() { k.run(p) })
	}
	p.ends.Go(p.write)
	return p
}

// take returns an empty job; there is one, sooner or later.
func (p *pipeline) take() *job {
	j := <-p.free
	p.written(j)
	*j = job{out: j.out[:0], buf: j.buf[:0], wire: j.wire[:0], results: j.results[:0], done: make(chan struct{})}
	return j
}

// put hands a job over. An error is that of the pipeline; the job is done then.
func (p *pipeline) put(j *job) error {
	if j.work == nil {
		close(j.done)
	} else {
		p.todo <- j
	}
	p.order <- j
	return context.Cause(p.ctx)
}

// end waits until all is written.
func (p *pipeline) end() error {
	close(p.todo)
	close(p.order)
	p.ends.Wait()
	for len(p.free) > 0 {
		p.written(<-p.free)
	}
	err := context.Cause(p.ctx)
	p.cancel(nil)
	if p.parent.Err() != nil {
		return fault.Ended(p.parent)
	}
	return err
}

// write writes jobs in order. After an error it only drains them.
func (p *pipeline) write() {
	for j := range p.order {
		<-j.done
		err := j.err
		if err == nil && context.Cause(p.ctx) == nil {
			err = p.send(j)
		}
		if err != nil {
			p.cancel(err)
		}
		p.free <- j
	}
}

func (p *pipeline) send(j *job) error {
	start, packed := 0, 0
	for _, f := range j.out {
		payload := j.buf[start:f.end]
		var err error
		if f.packed > 0 {
			err = p.packed.WriteEncoded(f.typ, f.codec, len(payload), j.wire[packed:f.packed])
			packed = f.packed
		} else if p.packed != nil && f.seen {
			err = p.packed.WriteEncoded(f.typ, transport.CodecNone, len(payload), payload)
		} else {
			err = p.w.WriteFrame(f.typ, payload)
		}
		if err != nil {
			return fault.Wrap(fault.Copy, err)
		}
		start = f.end
	}
	if p.packed != nil {
		p.link.Saw(p.packed.Busy())
	}
	p.stats.add(j.stat)
	if p.progress != nil {
		p.progress(p.stats)
	}
	return nil
}

// frame ends a frame of what was appended to the job's buffer since the last.
func (j *job) frame(t transport.Type) { j.out = append(j.out, outFrame{typ: t, end: len(j.buf)}) }

// worker is one core's part.
type worker struct {
	xattrs *xattrIO
	bulk   []byte
	packer *pack.Packer // nil: the writer packs, or nobody
}

func newWorker(packer *pack.Packer) *worker {
	return &worker{xattrs: newXattrIO(), bulk: make([]byte, chunkSize), packer: packer}
}

// packer is one for a worker, if the writer takes packed frames.
func (p *pipeline) packer(codec string) *pack.Packer {
	if p.packed == nil {
		return nil
	}
	k, err := pack.New(codec, &p.link)
	if err != nil { // an unknown name: the writer does as it was told
		return nil
	}
	return k
}

// run does jobs, also after an error: those of the jobs that hold something let
// go of it.
func (w *worker) run(p *pipeline) {
	for j := range p.todo {
		if j.err = j.work(w, j); j.err == nil && p.packed != nil {
			j.err = w.pack(j)
		}
		close(j.done)
	}
}

// pack packs content.
func (w *worker) pack(j *job) error {
	if w.packer == nil {
		return nil
	}
	start := 0
	for i := range j.out {
		f := &j.out[i]
		payload := j.buf[start:f.end]
		start = f.end
		if f.typ != transport.TypeFileData && f.typ != transport.TypeFileBatch {
			continue
		}
		packed, codec, err := w.packer.Pack(f.typ, len(payload), payload)
		if err != nil {
			return err
		}
		f.codec, f.seen = codec, true
		if packed != nil {
			j.wire = append(j.wire, packed...)
			f.packed = len(j.wire)
		}
	}
	return nil
}
