// Package criu runs CRIU, the checkpoint engine, one request at a time through
// its RPC ("criu swrk": a worker on an inherited socket, see criu's
// Documentation/criu.txt). The messages are go-criu's; the worker is started
// here because a migration needs what go-criu's runner has no place for: the
// pre-resume notification, inherited descriptors and a process group of its
// own, so that Ctrl-C at a terminal does not reach CRIU while it holds tasks.
//
// A worker can be started before it is needed, and into surroundings of its
// own (StartOptions): mounts that only CRIU sees, its knowledge of the kernel
// cached (Warm), a library that answers some of its system calls. For these
// the program re-executes itself: the child (see stage) makes the surroundings
// and becomes CRIU.
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

// FirstFile is the descriptor number that the first of the Files has in CRIU;
// the others follow it.
const FirstFile = 4

// Request is one RPC request.
type Request struct {
	Type rpc.CriuReqType
	Opts *rpc.CriuOpts
	// Notify, if set, is called for each of CRIU's action scripts by name
	// ("setup-namespaces", "post-restore", "pre-resume", …) with the pid of
	// the root task where CRIU gives one. An error makes CRIU give up.
	Notify func(script string, pid int) error
	// Files are inherited by CRIU as descriptors FirstFile and up. Only Do
	// looks at them: a Worker has its files from the start.
	Files []*os.File
}

// StartOptions is what a worker is started with. The zero value starts CRIU
// as it is.
type StartOptions struct {
	// Files are inherited by CRIU as descriptors FirstFile and up.
	Files []*os.File
	// Cache, if set, is the directory where Warm has put what CRIU found out
	// about the kernel.
	Cache string
	// Binds are mounts that only CRIU sees.
	Binds []Bind
	// Preload is a library to load into CRIU, and Calls the descriptor that it
	// wants as preload.FD.
	Preload string
	Calls   *os.File
}

// Bind makes the file or directory From appear at the existing path To.
type Bind struct{ From, To string }

// Worker is a CRIU that waits for its one request.
type Worker struct {
	conn *os.File
	cmd  *exec.Cmd
}

// Start starts CRIU at path. It does not look at the container's processes
// before it gets its request. With surroundings of its own it has a mount
// namespace, and does not see what is mounted later but by Show.
func Start(path string, o StartOptions) (*Worker, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socket pair for criu: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "criu rpc"), os.NewFile(uintptr(pair[1]), "criu rpc")
	defer theirs.Close()
	cmd, err := startProgram(path, append([]*os.File{theirs}, o.Files...), o)
	if err != nil {
		ours.Close()
		return nil, fmt.Errorf("start %q: %w", path, err)
	}
	return &Worker{ours, cmd}, nil
}

func startProgram(path string, files []*os.File, o StartOptions) (*exec.Cmd, error) {
	env := os.Environ()
	if o.Cache != "" {
		env = withTools(env, o.Cache)
		if fast, err := onTmpfs(runDir); err != nil {
			return nil, err
		} else if fast { // CRIU keeps its knowledge itself
			o.Cache = ""
		}
	}
	if o.Cache != "" || len(o.Binds) > 0 || o.Preload != "" {
		return startStaged(path, files, env, o)
	}
	cmd := exec.Command(path, "swrk", "3")
	cmd.ExtraFiles, cmd.Env = files, env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd, cmd.Start()
}

// PID is the worker's process.
func (w *Worker) PID() int { return w.cmd.Process.Pid }

// Do has the worker answer its one request and waits for it to end. It has no
// context on purpose: a CRIU that is killed while its parasite code sits in a
// task leaves that task broken. Callers bound it by Opts.Timeout (seconds) or
// by failing a notification.
func (w *Worker) Do(req Request) (*rpc.CriuResp, error) {
	resp, err := converse(w.conn, req)
	if werr := w.end(); werr != nil && err == nil {
		err = fmt.Errorf("criu swrk: %w", werr)
	}
	return resp, err
}

// Close ends a worker that was not asked anything: it finds the end of its
// socket. After Do it does nothing.
func (w *Worker) Close() { _ = w.end() }

func (w *Worker) end() error {
	if w.conn == nil {
		return nil
	}
	w.conn.Close()
	w.conn = nil
	return w.cmd.Wait()
}

// Do runs CRIU at path for one request and waits for it to end, see Worker.Do.
func Do(path string, req Request) (*rpc.CriuResp, error) {
	w, err := Start(path, StartOptions{Files: req.Files})
	if err != nil {
		return nil, err
	}
	return w.Do(req)
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
