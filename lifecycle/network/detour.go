package network

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// What a detour keeps at most; what comes after it is lost, as without one.
const (
	maxPackets     = 2048
	maxPacketBytes = 900 << 10
)

// Detour takes in what is sent to a container while it stands still, so that
// it can be given to it afterwards, wherever it is then. A peer whose packets
// were lost would notice only when its retransmission timer ends, 200 ms later
// at the earliest (RFC 6298; TCP_RTO_MIN of Linux).
//
// It is a TUN device (Documentation/networking/tuntap.rst of Linux) that the
// container's addresses are routed to. It goes with the process that made it.
type Detour struct {
	venet Venet
	tun   *os.File
	link  netlink.Link

	mu      sync.Mutex
	packets [][]byte
	bytes   int
	ended   bool
	done    chan struct{} // closed when nothing is taken in any more
}

// OpenDetour makes a detour. Nothing takes it before Begin.
func (v Venet) OpenDetour() (*Detour, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	d := &Detour{venet: v, done: make(chan struct{})}
	if err := d.setUp(fd); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	d.tun = os.NewFile(uintptr(fd), "tun") // not before it is a device: it could not be waited for
	go d.takeIn()
	return d, nil
}

func (d *Detour) setUp(fd int) error {
	name := "vzdetour" + strconv.FormatUint(uint64(d.venet.CTID), 36)
	request, err := unix.NewIfreq(name)
	if err != nil {
		return fmt.Errorf("name detour %q: %w", name, err)
	}
	request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		return fmt.Errorf("make detour %s: %w", name, err)
	}
	if d.link, err = netlink.LinkByName(name); err != nil {
		return fmt.Errorf("find detour %s: %w", name, err)
	}
	if err := netlink.LinkSetUp(d.link); err != nil {
		return fmt.Errorf("set detour %s up: %w", name, err)
	}
	return nil
}

// Begin sends the container's packets on the detour.
func (d *Detour) Begin() error { return d.route(d.link) }

// End stops it and returns what has come, oldest first. The addresses are
// routed nowhere then. A second call returns nothing.
func (d *Detour) End() [][]byte {
	for _, a := range d.venet.Addrs {
		_ = netlink.RouteDel(hostRoute(a, d.link)) // or it goes with the link
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	packets := d.packets
	d.packets, d.ended = nil, true
	return packets
}

// Back routes the addresses to the container again and gives it what has come.
func (d *Detour) Back() error {
	link, err := netlink.LinkByName(d.venet.HostEnd())
	if err != nil {
		return fmt.Errorf("find %s: %w", d.venet.HostEnd(), err)
	}
	if err := d.route(link); err != nil {
		return err
	}
	return d.venet.Deliver(d.End())
}

// Close removes the detour; its device takes a while to go.
func (d *Detour) Close() error {
	err := d.tun.Close()
	<-d.done
	return err
}

func (d *Detour) route(to netlink.Link) error {
	for _, a := range d.venet.Addrs {
		if err := netlink.RouteReplace(hostRoute(a, to)); err != nil {
			return fmt.Errorf("route %s to %s: %w", a, to.Attrs().Name, err)
		}
	}
	return nil
}

func (d *Detour) takeIn() {
	defer close(d.done)
	buf := make([]byte, 1<<16)
	for {
		n, err := d.tun.Read(buf)
		if err != nil {
			return
		}
		d.mu.Lock()
		if !d.ended && len(d.packets) < maxPackets && d.bytes+n <= maxPacketBytes {
			d.packets = append(d.packets, slices.Clone(buf[:n]))
			d.bytes += n
		}
		d.mu.Unlock()
	}
}

// Deliver gives the container packets that a detour has taken in, on whatever
// host. It drops those that are for nobody here. Peers send again what is lost,
// so it goes on past errors.
func (v Venet) Deliver(packets [][]byte) error {
	var errs []error
	sockets := map[bool]int{} // by whether for IPv4
	for _, p := range packets {
		to := destination(p)
		if !slices.Contains(v.Addrs, to) {
			continue
		}
		fd, ok := sockets[to.Is4()]
		if !ok {
			var err error
			if fd, err = rawSocket(to.Is4()); err != nil {
				return err
			}
			defer unix.Close(fd)
			sockets[to.Is4()] = fd
		}
		errs = append(errs, unix.Sendto(fd, p, 0, socketAddress(to)))
	}
	return errors.Join(errs...)
}

// rawSocket takes whole packets, headers included (raw(7)).
func rawSocket(v4 bool) (int, error) {
	family := unix.AF_INET6
	if v4 {
		family = unix.AF_INET
	}
	fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return -1, fmt.Errorf("open raw socket: %w", err)
	}
	return fd, nil
}

func socketAddress(a netip.Addr) unix.Sockaddr {
	if a.Is4() {
		return &unix.SockaddrInet4{Addr: a.As4()}
	}
	return &unix.SockaddrInet6{Addr: a.As16()}
}

// destination is where an IP packet goes (RFC 791, RFC 8200), or the zero Addr
// if it is none.
func destination(p []byte) netip.Addr {
	switch {
	case len(p) >= 20 && p[0]>>4 == 4 && int(binary.BigEndian.Uint16(p[2:])) == len(p):
		return netip.AddrFrom4([4]byte(p[16:20]))
	case len(p) >= 40 && p[0]>>4 == 6 && int(binary.BigEndian.Uint16(p[4:]))+40 == len(p):
		return netip.AddrFrom16([16]byte(p[24:40]))
	}
	return netip.Addr{}
}
