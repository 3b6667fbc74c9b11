package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netns"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/internal/procfs"
)

// The last number of a host's addresses, 198.18.77.N and fd00:77::N (the
// latter in the same digits). 101 and up are the containers'.
const (
	adminNumber = 2
	firstNumber = 11
)

// Host is one host of a lab.
type Host struct {
	lab    *Lab
	name   string
	number byte
}

// Name is the host's name, which is its hostname and SSH alias too.
func (h *Host) Name() string { return h.name }

// Addr is the host's IPv4 address; its network is a /24.
func (h *Host) Addr() netip.Addr { return netip.AddrFrom4([4]byte{198, 18, 77, h.number}) }

// Addr6 is the host's IPv6 address; its network is a /64.
func (h *Host) Addr6() netip.Addr {
	return netip.MustParseAddr(fmt.Sprintf("fd00:77::%d", h.number))
}

// Pid is the host's init, or 0 while the host is down.
func (h *Host) Pid() int {
	text, err := os.ReadFile(h.path("pid"))
	if err != nil {
		return 0
	}
	var pid int
	var started uint64
	if _, err := fmt.Sscan(string(text), &pid, &started); err != nil {
		return 0
	}
	if now, err := procfs.StartTime(pid); err != nil || now != started {
		return 0
	}
	return pid
}

func (h *Host) path(parts ...string) string { return h.lab.path(append([]string{h.name}, parts...)...) }

// writePid notes the init. The start time guards against a reused number.
func (h *Host) writePid(pid int) error {
	started, err := procfs.StartTime(pid)
	if err != nil {
		return err
	}
	return writeFile(h.path("pid"), fmt.Appendf(nil, "%d %d\n", pid, started), 0o644)
}

func (h *Host) down() error {
	return fault.New(fault.NotRunning, "host %q is down", h.name).WithHint("Mend the lab with: vzlab up")
}

// netNS opens the host's network namespace.
func (h *Host) netNS() (netns.NsHandle, error) {
	pid := h.Pid()
	if pid == 0 {
		return netns.None(), h.down()
	}
	return netns.GetFromPid(pid)
}

// in runs f on a thread that is in the host's network namespace.
func (h *Host) in(f func() error) error {
	ns, err := h.netNS()
	if err != nil {
		return err
	}
	defer ns.Close()
	return inNS(ns, f)
}

// Dial connects from inside the host. The address must be numeric: a name
// would be looked up outside.
func (h *Host) Dial(ctx context.Context, network, addr string) (conn net.Conn, err error) {
	if _, err := netip.ParseAddrPort(addr); err != nil {
		return nil, fault.New(fault.BadValue, "address %q: %w", addr, err)
	}
	err = h.in(func() error {
		conn, err = new(net.Dialer).DialContext(ctx, network, addr)
		return err
	})
	return conn, err
}

// Listen listens inside the host, on a numeric address.
func (h *Host) Listen(ctx context.Context, network, addr string) (ln net.Listener, err error) {
	if _, err := netip.ParseAddrPort(addr); err != nil {
		return nil, fault.New(fault.BadValue, "address %q: %w", addr, err)
	}
	err = h.in(func() error {
		ln, err = new(net.ListenConfig).Listen(ctx, network, addr)
		return err
	})
	return ln, err
}

// Command returns the command argv, to be run on the host by its root: in all
// its namespaces and its cgroups, in the caller's working directory where the
// host has that. Signals are passed on; a signal that ends the command becomes
// exit status 128+n, and whoever kills the Cmd, or the caller's process, kills
// the command. Status 125 is the lab's own: the host could not be entered.
func (h *Host) Command(ctx context.Context, argv ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Args = append([]string{execArg0, h.name, h.lab.Dir, strconv.Itoa(os.Getpid())}, argv...)
	cmd.Env = append(baseEnv(h.lab.Bin), keptEnv()...)
	return cmd
}

// baseEnv is what a root login starts with.
func baseEnv(bin string) []string {
	return []string{"PATH=" + hostPath(bin), "HOME=" + rootHome(), "USER=root", "LOGNAME=root", "SHELL=/bin/sh"}
}

func hostPath(bin string) string {
	return bin + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
}

// keptEnv is what of the caller's environment describes its terminal.
func keptEnv() (kept []string) {
	for _, kv := range os.Environ() {
		for _, name := range []string{"TERM=", "COLORTERM=", "LANG=", "LC_", "NO_COLOR="} {
			if strings.HasPrefix(kv, name) {
				kept = append(kept, kv)
			}
		}
	}
	return kept
}

// sshAddr is where the host's sshd listens.
func (h *Host) sshAddr() string { return netip.AddrPortFrom(h.Addr(), 22).String() }

// DialSSH connects to the host's sshd, from inside the host itself.
func (h *Host) DialSSH(ctx context.Context) (net.Conn, error) { return h.Dial(ctx, "tcp", h.sshAddr()) }

// How long one try may take to be connected, which needs no process at the
// other end, and to be greeted.
const (
	connectPatience  = 100 * time.Millisecond
	greetingPatience = 2 * time.Second
)

// answers waits until an sshd with the host's present configuration greets a
// client on admin.
func (h *Host) answers(ctx context.Context, patience time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errors.New("sshd does not answer"))
	defer cancel()
	_, version := h.sshdConfig()
	for {
		if greeting, err := h.greeting(ctx); err == nil && strings.HasSuffix(greeting, version) {
			return nil
		}
		if h.Pid() == 0 {
			return errors.New("init died")
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// greeting is the first line of the host's sshd, as a client on admin gets it.
func (h *Host) greeting(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, connectPatience)
	defer cancel()
	admin := Host{lab: h.lab, name: Admin}
	conn, err := admin.Dial(ctx, "tcp", h.sshAddr())
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(greetingPatience)); err != nil {
		return "", err
	}
	// RFC 4253, section 4.2: 255 bytes at most.
	line, err := bufio.NewReader(io.LimitReader(conn, 255)).ReadString('\n')
	if err != nil {
		return "", err
	}
	// A client that says nothing would end up in sshd's log.
	_, err = io.WriteString(conn, "SSH-2.0-vzlab\r\n")
	return strings.TrimRight(line, "\r\n"), err
}
