package pager

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/freeze"
)

// Guard is a process that holds a second descriptor of every userfaultfd, so
// that none is the last one when the pager dies: no missing page turns into a
// zero page. It then freezes the container and keeps what it holds until the
// container is killed. It is this program, run again under guardName.
type Guard struct {
	mu   sync.Mutex
	conn int // a sequenced-packet socket
	cmd  *exec.Cmd
	next uint32

	soften func() // undoes harden
}

const guardName = "vz-pager-guard"

// Messages to the guard: one byte and a number. Each is answered by one byte.
const (
	guardHold = 'h' // keep the descriptor that comes along, under that number
	guardDrop = 'd' // close it
	guardEnd  = 'e' // end
	guardSize = 5
)

// StartGuard starts the guard of a container's pager, by the container's
// freezer, and makes sure that this process stays. It takes some milliseconds,
// more if the store is full, so it is to be done before they count. It belongs
// to the pager once that is attached; until then Close ends it.
func StartGuard(f freeze.Freezer) (*Guard, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socket pair for guard: %w", err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "guard")
	defer theirs.Close()
	unified := ""
	if f.Unified {
		unified = "unified"
	}
	cmd := &exec.Cmd{
		Path: "/proc/self/exe", Args: []string{guardName, f.Dir, unified}, Dir: "/",
		ExtraFiles: []*os.File{theirs}, SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start guard: %w", err), unix.Close(pair[0]))
	}
	return &Guard{conn: pair[0], cmd: cmd, soften: harden()}, nil
}

// hold has the guard keep fd, and returns its number there.
func (g *Guard) hold(fd int) (number uint32, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.next++
	return g.next, g.ask(guardHold, g.next, unix.UnixRights(fd))
}

// drop has the guard close a descriptor. A guard that has died has none.
func (g *Guard) drop(number uint32) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return unlessDead(g.ask(guardDrop, number, nil))
}

// Close ends the guard; what it holds is closed. Closing twice is fine.
func (g *Guard) Close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.conn < 0 {
		return nil
	}
	err := unlessDead(g.ask(guardEnd, 0, nil))
	_ = unix.Close(g.conn)
	g.conn = -1
	_ = g.cmd.Wait()
	g.soften()
	return err
}

func unlessDead(err error) error {
	if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) {
		return nil
	}
	return err
}

func (g *Guard) ask(what byte, number uint32, rights []byte) error {
	message := binary.NativeEndian.AppendUint32([]byte{what}, number)
	err := unix.Sendmsg(g.conn, message, rights, nil, unix.MSG_NOSIGNAL)
	if err == nil {
		var n int
		if n, err = readAgain(g.conn, make([]byte, 1)); err == nil && n == 0 {
			err = unix.EPIPE
		}
	}
	if err != nil {
		return fmt.Errorf("guard: %w", err)
	}
	return nil
}

func readAgain(fd int, b []byte) (int, error) {
	for {
		n, err := unix.Read(fd, b)
		if err != unix.EINTR {
			return n, err
		}
	}
}

// Here and not in the mains: what is re-executed is also a test.
func init() {
	if os.Args[0] != guardName || len(os.Args) != 3 {
		return
	}
	signal.Ignore(unix.SIGHUP, unix.SIGINT, unix.SIGTERM)
	harden()
	f := freeze.Freezer{Dir: os.Args[1], Unified: os.Args[2] != ""}
	if !guardServe(3) {
		keepFrozen(f)
	}
	os.Exit(0)
}

// guardServe answers the pager. It returns false if that has died.
func guardServe(conn int) (ended bool) {
	held := map[uint32]int{}
	for {
		message, rights := make([]byte, guardSize), make([]byte, unix.CmsgSpace(4))
		n, rn, _, _, err := unix.Recvmsg(conn, message, rights, unix.MSG_CMSG_CLOEXEC)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n != guardSize {
			return false
		}
		number := binary.NativeEndian.Uint32(message[1:])
		switch message[0] {
		case guardHold:
			if fd, err := oneRight(rights[:rn]); err == nil {
				held[number] = fd
			}
		case guardDrop:
			_ = unix.Close(held[number])
			delete(held, number)
		case guardEnd:
			ended = true
		}
		_, err = unix.Write(conn, message[:1])
		if ended {
			return true
		}
		if err != nil {
			return false
		}
	}
}

// keepFrozen freezes the container and stays until nothing of it is left.
func keepFrozen(f freeze.Freezer) {
	for frozen := false; ; time.Sleep(guardPoll) {
		pids, err := members(f.Dir)
		if err != nil || len(pids) == 0 {
			return
		}
		if !frozen { // v1 may need to be asked again
			_ = f.Mark()
			frozen, _ = f.Frozen()
		}
	}
}

const guardPoll = 10 * time.Millisecond

// oneRight is the one descriptor in a control message.
func oneRight(control []byte) (int, error) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err == nil && len(messages) == 1 {
		var rights []int
		if rights, err = unix.ParseUnixRights(&messages[0]); err == nil && len(rights) == 1 {
			return rights[0], nil
		}
	}
	return -1, fmt.Errorf("no descriptor in %x", control)
}

// harden has the process stay: it is not to be chosen when memory is short, and
// what it uses is not swapped out. Without the privilege it is as it was.
func harden() (undo func()) {
	const file = "/proc/self/oom_score_adj"
	old, err := os.ReadFile(file)
	if err == nil {
		err = os.WriteFile(file, []byte("-1000"), 0)
	}
	// On fault: the store's views are mostly holes, and the runtime's arenas
	// are not there yet.
	_ = unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT)
	// A thread that returns from waiting for a fault must not queue for a
	// processor of the runtime's behind those that fill in.
	procs := runtime.GOMAXPROCS(0)
	runtime.GOMAXPROCS(procs + servers)
	return func() {
		runtime.GOMAXPROCS(procs)
		_ = unix.Munlockall()
		if err == nil {
			_ = os.WriteFile(file, old, 0)
		}
	}
}
