package dump

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/vzkit/vzkit/internal/fault"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds what a page server that hangs would never answer.
const patience = 20 * time.Second

// recorder is a Sink that keeps what it gets. Its first error is fail, once it
// has got after runs.
type recorder struct {
	runs   []Run
	opened []uint64 // address spaces, in order
	fail   error
	after  int
}

func (r *recorder) Pages(run Run) error {
	if run.Count == 0 {
		r.opened = append(r.opened, run.ID)
		return nil
	}
	if r.fail != nil && len(r.runs) >= r.after {
		return r.fail
	}
	run.Data = bytes.Clone(run.Data)
	r.runs = append(r.runs, run)
	return nil
}

func (*recorder) Image(string, []byte, bool) error { return errors.New("no image was announced") }

// criuEnd is CRIU's end of the page server's socket. Headers are 32 bytes
// wide, or 24 as before CRIU 4.2.
type criuEnd struct {
	t    *testing.T
	conn net.Conn
	wide bool
}

// serve starts a page server and returns it with CRIU's end of it.
func serve(t *testing.T, ctx context.Context, sink Sink, wide bool) (*pageServer, *criuEnd) {
	t.Helper()
	s, err := newPageServer()
	if err != nil {
		t.Fatal(err)
	}
	s.start(ctx, sink)
	conn, err := net.FileConn(s.theirs)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(); s.finish() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return s, &criuEnd{t, conn, wide}
}

// header is a command as CRIU sends it.
func header(wide bool, command, flags uint32, pages, addr, dest uint64) []byte {
	b := binary.NativeEndian.AppendUint32(nil, command|flags<<cmdBits)
	if wide {
		b = append(b, 0, 0, 0, 0)
		b = binary.NativeEndian.AppendUint64(b, pages)
	} else {
		b = binary.NativeEndian.AppendUint32(b, uint32(pages))
	}
	b = binary.NativeEndian.AppendUint64(b, addr)
	return binary.NativeEndian.AppendUint64(b, dest)
}

func (c *criuEnd) write(b []byte) {
	c.t.Helper()
	if _, err := c.conn.Write(b); err != nil {
		c.t.Fatalf("write to page server: %v", err)
	}
}

func (c *criuEnd) send(command, flags uint32, pages, addr, dest uint64) {
	c.t.Helper()
	c.write(header(c.wide, command, flags, pages, addr, dest))
}

// want reads the page server's answer.
func (c *criuEnd) want(answer ...byte) {
	c.t.Helper()
	got := make([]byte, len(answer))
	if _, err := io.ReadFull(c.conn, got); err != nil || !bytes.Equal(got, answer) {
		c.t.Fatalf("page server answered %v, %v, want %v", got, err, answer)
	}
}

func destination(space Space, id uint64) uint64 { return id<<typeBits | uint64(space) }

// content is count pages, each different from the others.
func content(count int) []byte {
	b := make([]byte, count*PageSize)
	for i := range count {
		binary.NativeEndian.PutUint64(b[i*PageSize:], uint64(i+1))
	}
	return b
}

func TestPageServerTakesBothHeaders(t *testing.T) {
	for _, wide := range []bool{false, true} {
		t.Run(fmt.Sprint("wide=", wide), func(t *testing.T) {
			var sink recorder
			s, c := serve(t, t.Context(), &sink, wide)
			task, shmem := destination(SpaceTask, 4711), destination(SpaceShmem, 1<<40)
			c.send(cmdOpen2, 0, 0, 0, task)
			c.want(0)
			c.send(cmdAddFlags, flagPresent|2, 1, 0x400000, task)
			c.write(content(1))
			c.send(cmdAddFlags, flagParent, 7, 0x500000, task)
			c.send(cmdHole, 0, 5, 0x600000, task)
			c.send(cmdOpen2, 0, 0, 0, shmem)
			c.want(0)
			c.send(cmdAdd, 0, 2, 0, shmem)
			c.write(content(2))
			c.send(cmdClose, 0, 0, 0, 0)
			c.want(0, 0, 0, 0)
			want := []Run{
				{SpaceTask, 4711, 0x400000, 1, flagPresent | 2, content(1)},
				{SpaceTask, 4711, 0x500000, 7, flagParent, nil},
				{SpaceTask, 4711, 0x600000, 5, flagParent, nil},
				{SpaceShmem, 1 << 40, 0, 2, flagPresent, content(2)},
			}
			pages, err := s.finish()
			if err != nil || pages != 3 {
				t.Errorf("%d pages, %v", pages, err)
			}
			if diff := cmp.Diff(want, sink.runs); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff([]uint64{4711, 1 << 40}, sink.opened); diff != "" {
				t.Error(diff)
			}
			if again, err := s.finish(); again != pages || err != nil {
				t.Errorf("finished again: %d pages, %v", again, err)
			}
		})
	}
}

func TestPageServerSplitsRuns(t *testing.T) {
	var sink recorder
	s, c := serve(t, t.Context(), &sink, true)
	const count, start, hole = 2*maxRun + 3, 0x7f0000000000, 3<<30 + 1
	task := destination(SpaceTask, 1)
	c.send(cmdOpen2, 0, 0, 0, task)
	c.want(0)
	c.send(cmdAddFlags, flagPresent, count, start, task)
	c.write(content(count))
	c.send(cmdHole, 0, hole, start, task)
	c.send(cmdForceClose, 0, 0, 0, 0)
	c.want(0, 0, 0, 0)
	if pages, err := s.finish(); pages != count || err != nil {
		t.Errorf("%d pages, %v", pages, err)
	}
	var data []byte
	next := map[bool]uint64{true: start, false: start}
	total := map[bool]uint64{}
	for _, r := range sink.runs {
		present := r.Flags&flagPresent != 0
		if r.Address != next[present] || r.Count == 0 || present && r.Count > maxRun {
			t.Errorf("run of %d pages at %#x, want it at %#x", r.Count, r.Address, next[present])
		}
		next[present] += uint64(r.Count) * PageSize
		total[present] += uint64(r.Count)
		data = append(data, r.Data...)
	}
	if !bytes.Equal(data, content(count)) || total[false] != hole {
		t.Errorf("%d bytes and %d pages without content", len(data), total[false])
	}
}

// A dump that cannot be used must still end: CRIU has the tasks in its hands.
func TestPageServerDrainsAfterFailure(t *testing.T) {
	full := fault.New(fault.NoSpace, "sink is full")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, test := range []struct {
		name string
		ctx  context.Context
		sink recorder
		want error
	}{
		{"sink fails at once", t.Context(), recorder{fail: full}, full},
		{"sink fails later", t.Context(), recorder{fail: full, after: 3}, full},
		{"context ended", ended, recorder{}, context.Canceled},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, c := serve(t, test.ctx, &test.sink, true)
			task := destination(SpaceTask, 1)
			for range 10 {
				c.send(cmdOpen2, 0, 0, 0, task)
				c.want(0)
				c.send(cmdAddFlags, flagPresent, 300, 0x400000, task)
				c.write(content(300))
			}
			c.send(cmdClose, 0, 0, 0, 0)
			c.want(1, 0, 0, 0)
			if _, err := s.finish(); !errors.Is(err, test.want) {
				t.Errorf("error %v, want %v", err, test.want)
			}
			if len(test.sink.runs) != test.sink.after {
				t.Errorf("sink has %d runs, want %d", len(test.sink.runs), test.sink.after)
			}
		})
	}
}

func TestPageServerRefusesBadStreams(t *testing.T) {
	task := destination(SpaceTask, 1)
	open := header(true, cmdOpen2, 0, 0, 0, task)
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	for name, stream := range map[string][]byte{
		"unknown command":       join(open, header(true, 99, 0, 0, 0, task)),
		"unknown first command": header(true, 0x7fff, 0, 0, 0, 0),
		"absurd count":          join(open, header(true, cmdHole, 0, 1<<36+1, 0, task)),
		"greatest count":        join(open, header(true, cmdAddFlags, flagPresent, 1<<64-1, 0, task)),
		"no address space":      join(open, header(true, cmdHole, 0, 1, 0, 0)),
		"unknown address space": join(open, header(true, cmdHole, 0, 1, 0, destination(3, 1))),
		"cut in a header":       join(open, open[:31]),
		"cut in first header":   open[:10],
		"cut in a wide header":  open[:24],
		"cut before the pages":  join(open, header(true, cmdAddFlags, flagPresent, 2, 0, task)),
		"cut in the pages":      join(open, header(true, cmdAddFlags, flagPresent, 2, 0, task), content(2)[:PageSize+1]),
	} {
		t.Run(name, func(t *testing.T) {
			s, c := serve(t, t.Context(), &recorder{}, true)
			c.write(stream)
			c.conn.Close()
			if _, err := s.finish(); fault.KindOf(err) != fault.Checkpoint {
				t.Errorf("error %v of kind %d", err, fault.KindOf(err))
			}
		})
	}
}

// CRIU may end before it has sent anything, or without a farewell.
func TestPageServerEndsWithCriu(t *testing.T) {
	for _, commands := range [][]uint32{{}, {cmdParent}, {cmdOpen2}, {cmdOpen2, cmdOpen2, cmdParent}} {
		s, c := serve(t, t.Context(), &recorder{}, true)
		for _, command := range commands {
			c.send(command, 0, 0, 0, destination(SpaceTask, 1))
			if command == cmdOpen2 {
				c.want(0)
			}
		}
		c.conn.Close()
		if pages, err := s.finish(); pages != 0 || err != nil {
			t.Errorf("%#x: %d pages, %v", commands, pages, err)
		}
	}
}

// A dump that fails early sends nothing but its farewell, and waits for the
// answer.
func TestPageServerAnswersEarlyFarewell(t *testing.T) {
	for _, wide := range []bool{false, true} {
		for _, command := range []uint32{cmdClose, cmdForceClose} {
			s, c := serve(t, t.Context(), &recorder{}, wide)
			c.send(command, 0, 0, 0, 0)
			c.want(0, 0, 0, 0)
			c.conn.Close()
			if _, err := s.finish(); err != nil {
				t.Errorf("wide %v, command %#x: %v", wide, command, err)
			}
		}
	}
}

// A CRIU whose stream was refused must not hang, whether it writes on or waits
// for an answer.
func TestPageServerHangsUpOnBadStream(t *testing.T) {
	s, c := serve(t, t.Context(), &recorder{}, true)
	c.send(99, 0, 0, 0, 0)
	for range 64 {
		c.write(content(maxRun))
	}
	if n, err := c.conn.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("page server answers %d bytes, %v", n, err)
	}
	c.conn.Close()
	if _, err := s.finish(); fault.KindOf(err) != fault.Checkpoint {
		t.Errorf("error %v", err)
	}
}

// FuzzPageServer feeds arbitrary streams; whatever comes, the server ends when
// the stream does, and no run is longer than promised.
func FuzzPageServer(f *testing.F) {
	task := destination(SpaceTask, 7)
	for _, wide := range []bool{false, true} {
		open, end := header(wide, cmdOpen2, 0, 0, 0, task), header(wide, cmdClose, 0, 0, 0, 0)
		f.Add(bytes.Join([][]byte{open, header(wide, cmdAddFlags, flagPresent, 1, 4096, task), content(1), end}, nil))
		f.Add(bytes.Join([][]byte{open, header(wide, cmdHole, 0, 1<<31, 0, task), end}, nil))
		f.Add(end)
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, stream []byte) {
		s, c := serve(t, t.Context(), checker{t}, false)
		go func() { _, _ = io.Copy(io.Discard, c.conn) }() // its answers
		_, _ = c.conn.Write(stream)
		_ = c.conn.(*net.UnixConn).CloseWrite()
		s.finish()
	})
}

type checker struct{ t *testing.T }

func (c checker) Pages(r Run) error {
	present := r.Flags&flagPresent != 0
	if r.Count == 0 && (r.Flags != 0 || len(r.Data) > 0) || present && (r.Count > maxRun || len(r.Data) != int(r.Count)*PageSize) || !present && len(r.Data) > 0 {
		c.t.Errorf("run of %d pages with %d bytes, flags %#x", r.Count, len(r.Data), r.Flags)
	}
	return nil
}

func (checker) Image(string, []byte, bool) error { return nil }
