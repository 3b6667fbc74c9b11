// Package criu runs CRIU, the checkpoint engine, one request at a time through
// its RPC ("criu swrk": a worker on an inherited socket, see criu's
// Documentation/criu.txt). The messages are go-criu's; the worker is started
// here because a migration needs what go-criu's runner has no place for: the
// pre-resume notification, inherited descriptors and a process group of its
// own, so that Ctrl-C at a terminal does not reach CRIU while it holds tasks.
package criu

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"github.com/checkpoint-restore/go-criu/v7/rpc"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
)

// maxResponse bounds one RPC message from CRIU, in bytes; the longest holds an
// error text.
const maxResponse = 64 << 10

// FirstFile is the descriptor number that Request.Files[0] has in CRIU; the
// others follow it.
const FirstFile = 4

// Request is one RPC request.
type Request struct {
	Type rpc.CriuReqType
	Opts *rpc.CriuOpts
	// Notify, if set, is called for each of CRIU's action scripts by name
	// ("setup-namespaces", "post-restore", "pre-resume", …) with the pid of
	// the root task where CRIU gives one. An error makes CRIU give up.
	Notify func(script string, pid int) error
	// Files are inherited by CRIU as descriptors FirstFile and up.
	Files []*os.File
}

// Do runs CRIU at path for one request and waits for it to end. It has no
// context on purpose: a CRIU that is killed while its parasite code sits in a
// task leaves that task broken. Callers bound it by Opts.Timeout (seconds) or
// by failing a notification.
func Do(path string, req Request) (*rpc.CriuResp, error) {
	conn, cmd, err := start(path, req.Files)
	if err != nil {
		return nil, err
	}
	resp, err := converse(conn, req)
	conn.Close()
	if werr := cmd.Wait(); werr != nil && err == nil {
		err = fmt.Errorf("criu swrk: %w", werr)
	}
	return resp, err
}

func start(path string, files []*os.File) (*os.File, *exec.Cmd, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socket pair for criu: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "criu rpc"), os.NewFile(uintptr(pair[1]), "criu rpc")
	defer theirs.Close()
	cmd := exec.Command(path, "swrk", "3")
	cmd.ExtraFiles = append([]*os.File{theirs}, files...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		ours.Close()
		return nil, nil, fmt.Errorf("start %q: %w", path, err)
	}
	return ours, cmd, nil
}

// converse sends the request, answers notifications, and returns the final
// response.
func converse(conn *os.File, req Request) (*rpc.CriuResp, error) {
	if req.Notify != nil {
		req.Opts.NotifyScripts = proto.Bool(true)
	}
	msg := &rpc.CriuReq{Type: req.Type.Enum(), Opts: req.Opts}
	for {
		resp, err := exchange(conn, msg)
		if err != nil {
			return nil, err
		}
		if resp.GetType() != rpc.CriuReqType_NOTIFY {
			return resp, failure(resp)
		}
		if req.Notify == nil {
			return nil, errors.New("criu: notification without a handler")
		}
		n := resp.GetNotify()
		if err := req.Notify(n.GetScript(), int(n.GetPid())); err != nil {
			refuse := &rpc.CriuReq{Type: rpc.CriuReqType_NOTIFY.Enum(), NotifySuccess: proto.Bool(false)}
			_, _ = exchange(conn, refuse) // CRIU answers with its own failure; ours says why
			return nil, fmt.Errorf("%s: %w", n.GetScript(), err)
		}
		msg = &rpc.CriuReq{Type: rpc.CriuReqType_NOTIFY.Enum(), NotifySuccess: proto.Bool(true)}
	}
}

func exchange(conn *os.File, msg *rpc.CriuReq) (*rpc.CriuResp, error) {
	out, err := proto.Marshal(msg)
	if err != nil {
		return nil, fmt.Errorf("encode criu request: %w", err)
	}
	if _, err := conn.Write(out); err != nil {
		return nil, fmt.Errorf("send criu request: %w", err)
	}
	in := make([]byte, maxResponse)
	n, err := conn.Read(in)
	if err != nil {
		return nil, fmt.Errorf("read criu response: %w", err)
	}
	resp := &rpc.CriuResp{}
	if err := proto.Unmarshal(in[:n], resp); err != nil {
		return nil, fmt.Errorf("decode criu response: %w", err)
	}
	return resp, nil
}

func failure(resp *rpc.CriuResp) error {
	if resp.GetSuccess() {
		return nil
	}
	if msg := resp.GetCrErrmsg(); msg != "" {
		return errors.New(msg)
	}
	if e := resp.GetCrErrno(); e != 0 {
		return fmt.Errorf("criu %v: %w", resp.GetType(), syscall.Errno(e))
	}
	return fmt.Errorf("criu %v: refused", resp.GetType())
}
