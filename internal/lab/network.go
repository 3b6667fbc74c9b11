package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

const (
	bridgeName = "br0"
	mtu        = 1500
)

// inNS runs f on a thread that is in network namespace ns. Sockets that f
// opens stay in it. f must not leave work to other goroutines.
func inNS(ns netns.NsHandle, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		home, err := netns.Get()
		if err != nil {
			runtime.UnlockOSThread()
			done <- err
			return
		}
		defer home.Close()
		if err = netns.Set(ns); err == nil {
			err = f()
		}
		if back := netns.Set(home); back == nil {
			runtime.UnlockOSThread() // else the thread ends with this goroutine
		}
		done <- err
	}()
	return <-done
}

// openSwitch opens the namespace of the lab's bridge, which every init holds
// open, or makes a new one if no host is running.
func (l *Lab) openSwitch() (netns.NsHandle, error) {
	for _, h := range l.Hosts() {
		if pid := h.Pid(); pid != 0 {
			if ns, err := netns.GetFromPath(fmt.Sprintf("/proc/%d/fd/%d", pid, switchFD)); err == nil {
				return ns, nil
			}
		}
	}
	ns, err := newNetNS()
	if err != nil {
		return ns, fmt.Errorf("make switch namespace: %w", err)
	}
	if err := inNS(ns, makeBridge); err != nil {
		ns.Close()
		return netns.None(), fmt.Errorf("make bridge: %w", err)
	}
	return ns, nil
}

func newNetNS() (ns netns.NsHandle, err error) {
	home, err := netns.Get()
	if err != nil {
		return netns.None(), err
	}
	defer home.Close()
	err = inNS(home, func() error {
		ns, err = netns.New()
		return err
	})
	return ns, err
}

// makeBridge makes a bridge that forwards at once: the kernel's default is no
// spanning tree, and so no forward delay (net/bridge/br_stp.c).
func makeBridge() error {
	// The switch has no business of its own in IPv6.
	if err := sysctl("net/ipv6/conf/default/disable_ipv6", "1"); err != nil {
		return err
	}
	off := false
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = bridgeName, mtu
	br := &netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &off}
	return errors.Join(netlink.LinkAdd(br), netlink.LinkSetUp(br))
}

// sysctl sets a variable of the calling thread's network namespace. One that
// the kernel does not have is passed over.
func sysctl(name, value string) error {
	err := os.WriteFile(filepath.Join("/proc/sys", name), []byte(value), 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// hardware is the host's MAC address. It is the same after a reboot, so that
// the other hosts' neighbour tables stay right.
func (h *Host) hardware() net.HardwareAddr {
	return append(net.HardwareAddr{2, 0}, h.Addr().AsSlice()...)
}

// plugged tells whether the host whose init is pid is connected to the bridge.
func (h *Host) plugged(sw netns.NsHandle, pid int) bool {
	ns, err := netns.GetFromPid(pid)
	if err != nil {
		return false
	}
	defer ns.Close()
	var port netlink.Link
	return inNS(ns, func() error { _, err := netlink.LinkByName("eth0"); return err }) == nil &&
		inNS(sw, func() (err error) { port, err = netlink.LinkByName(h.name); return err }) == nil &&
		port.Attrs().MasterIndex != 0
}

// plug connects the host whose init is pid to the bridge, with all that its
// network needs. What an earlier run left of its port is removed.
func (h *Host) plug(sw netns.NsHandle, pid int) error {
	if err := inNS(sw, func() error { return h.addPort(pid) }); err != nil {
		return fmt.Errorf("plug in: %w", err)
	}
	ns, err := netns.GetFromPid(pid)
	if err != nil {
		return err
	}
	defer ns.Close()
	if err := inNS(ns, h.configure); err != nil {
		return fmt.Errorf("configure network: %w", err)
	}
	return nil
}

func (h *Host) addPort(pid int) error {
	if old, err := netlink.LinkByName(h.name); err == nil {
		// The kernel may be removing it just now, with the other end.
		if err := netlink.LinkDel(old); err != nil && !errors.Is(err, unix.ENODEV) {
			return err
		}
	}
	br, err := netlink.LinkByName(bridgeName)
	if err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.MasterIndex = h.name, mtu, br.Attrs().Index
	port := netlink.NewVeth(attrs)
	port.PeerName, port.PeerHardwareAddr = "eth0", h.hardware()
	port.PeerNamespace = netlink.NsPid(pid)
	return errors.Join(netlink.LinkAdd(port), netlink.LinkSetUp(port))
}

// configure sets up the host's end, in its namespace. Addresses are usable at
// once: nobody else can have them.
func (h *Host) configure() error {
	for name, value := range map[string]string{
		"net/ipv4/ip_forward":              "1",
		"net/ipv6/conf/all/forwarding":     "1",
		"net/ipv6/conf/all/accept_dad":     "0",
		"net/ipv6/conf/default/accept_dad": "0",
		"net/ipv6/conf/eth0/accept_dad":    "0",
	} {
		if err := sysctl(name, value); err != nil {
			return err
		}
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	eth0, err := netlink.LinkByName("eth0")
	if err != nil {
		return err
	}
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: h.Addr().AsSlice(), Mask: net.CIDRMask(24, 32)}}
	if err := errors.Join(netlink.LinkSetUp(lo), netlink.AddrAdd(eth0, addr), h.addAddr6(eth0)); err != nil {
		return err
	}
	return netlink.LinkSetUp(eth0)
}

// addAddr6 gives eth0 its IPv6 address, on a kernel that has IPv6.
func (h *Host) addAddr6(eth0 netlink.Link) error {
	if _, err := os.Stat("/proc/sys/net/ipv6"); err != nil {
		return nil
	}
	net6 := &net.IPNet{IP: h.Addr6().AsSlice(), Mask: net.CIDRMask(64, 128)}
	return netlink.AddrAdd(eth0, &netlink.Addr{IPNet: net6, Flags: unix.IFA_F_NODAD})
}
