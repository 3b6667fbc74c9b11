package test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os/exec"
	"testing"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/migrate"
	"github.com/vzkit/vzkit/transport"
)

// receiver is a real `vzmigrate --receive`, started over SSH, at the mercy of
// the test.
type receiver struct {
	*transport.Conn
	t   testing.TB
	cmd *exec.Cmd
	in  io.WriteCloser
}

func (h host) receiver(t testing.TB) *receiver {
	t.Helper()
	cmd := admin(t).Command(t.Context(), "ssh", "-T", h.Name(), "vzmigrate", "--receive")
	cmd.Env = append(cmd.Env, quickExit)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return &receiver{transport.NewConn(out, in), t, cmd, in}
}

// send writes bytes that need not be frames.
func (r *receiver) send(b []byte) {
	_, _ = r.in.Write(b) // it may have gone already
}

// say writes a frame with JSON.
func (r *receiver) say(typ transport.Type, v any) { _ = r.WriteJSON(typ, v) }

// greet exchanges hellos.
func (r *receiver) greet() {
	r.t.Helper()
	if _, _, err := r.Handshake(transport.Hello{Program: "test", Role: transport.RoleSender, HostID: "test"}); err != nil {
		r.t.Fatal(err)
	}
}

// offer makes an offer that is accepted.
func (r *receiver) offer(o migrate.Offer) {
	r.t.Helper()
	r.greet()
	r.say(transport.TypeOffer, o)
	if err := r.ReadJSON(transport.TypeAccept, nil); err != nil {
		r.t.Fatal(err)
	}
}

// gives closes the receiver's input and checks that it answers with an error
// of that kind, and ends with that exit code.
func (r *receiver) gives(kind fault.Kind, code int) {
	r.t.Helper()
	r.in.Close()
	err := r.lastWord()
	var said *transport.PeerError
	if kind != fault.Other && (!errors.As(err, &said) || fault.KindOf(err) != kind) {
		r.t.Errorf("answer %v of kind %d, want kind %d", err, fault.KindOf(err), kind)
	}
	_ = r.cmd.Wait()
	if got := r.cmd.ProcessState.ExitCode(); got != code {
		r.t.Errorf("exit code %d, want %d (answer: %v)", got, code, err)
	}
}

// lastWord reads up to the error with which the peer ends, or the end.
func (r *receiver) lastWord() error {
	for {
		if _, _, err := r.ReadFrame(); err != nil {
			return err
		}
	}
}

// anOffer is an offer that would be accepted.
func anOffer(c *container) migrate.Offer {
	return migrate.Offer{
		ID: "01234567-89ab-4cde-8f01-23456789abcd", CTID: c.id, Config: "IP_ADDRESS=\"" + c.addr + "\"\n",
		Live: true, Memory: 1 << 20, Disk: 1 << 20, Inodes: 10,
	}
}

// frame encodes one frame.
func frame[T string | []byte](typ transport.Type, payload T) []byte {
	var b bytes.Buffer
	c := transport.NewConn(nil, &b)
	if err := c.WriteFrame(typ, []byte(payload)); err != nil {
		panic(err)
	}
	if err := c.Flush(); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// header encodes the head of a frame with a payload of that length.
func header(typ transport.Type, length uint32) []byte {
	b := make([]byte, 12)
	b[0] = byte(typ)
	binary.BigEndian.PutUint32(b[4:], length)
	return b
}

// flipped changes one bit.
func flipped(b []byte, i int) []byte {
	b = bytes.Clone(b)
	b[(i+len(b))%len(b)] ^= 0x10
	return b
}

// entry encodes the payload of a file-entry for a directory or another file
// without content, as package files describes it.
func entry(path string, mode uint32, target string) []byte {
	b := []byte{1}
	b = binary.BigEndian.AppendUint16(b, uint16(len(path)))
	b = append(b, path...)
	for _, v := range []uint32{mode, 100000, 100000, 0, 0} { // mode, owner, group, device
		b = binary.BigEndian.AppendUint32(b, v)
	}
	b = append(b, make([]byte, 8+2*(8+4))...) // size, times
	b = append(b, make([]byte, 4+4+1+2)...)   // flags, project, no basis
	b = binary.BigEndian.AppendUint16(b, uint16(len(target)))
	b = append(b, target...)
	return append(b, 0, 0) // no extended attributes
}

// batch encodes the payload of a file-batch: entries of a directory, empty ones.
func batch(dir string, entries ...[]byte) []byte {
	b := append(binary.BigEndian.AppendUint16(nil, uint16(len(dir))), dir...)
	for _, e := range entries {
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(e))), e...)
	}
	return b
}

// numbered encodes the payload of a file-aside or file-back.
func numbered(n uint64, path string) []byte {
	return append(binary.BigEndian.AppendUint64(nil, n), path...)
}

// link encodes the payload of a file-entry for one more hard link.
func link(path, to string) []byte {
	b := []byte{2}
	for _, s := range []string{path, to} {
		b = append(binary.BigEndian.AppendUint16(b, uint16(len(s))), s...)
	}
	return b
}

// image encodes the payload of an image frame.
func image(name string) []byte {
	return append([]byte{1, byte(len(name))}, name+"content"...)
}
