package ledger

import (
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// Identity is how the kernel knows a connection. It is asked afresh each time;
// Go's own idea of the addresses dates from the dial.
type Identity struct {
	Local  string `json:"local"`
	Remote string `json:"remote"`
	Cookie uint64 `json:"cookie"` // SO_COOKIE: the kernel never gives it to another socket
}

// observation is an Identity with counters.
type observation struct {
	Identity
	retransmits uint32 // tcpi_total_retrans of TCP_INFO, tcp(7)
}

// identify asks the kernel about conn. What it does not tell stays empty: a
// connection that was reset has no peer any more.
func identify(conn net.Conn) (o observation) {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return o
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return o
	}
	raw.Control(func(descriptor uintptr) {
		fd := int(descriptor)
		if sa, err := unix.Getsockname(fd); err == nil {
			o.Local = address(sa)
		}
		if sa, err := unix.Getpeername(fd); err == nil {
			o.Remote = address(sa)
		}
		if cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE); err == nil {
			o.Cookie = cookie
		}
		if info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			o.retransmits = info.Total_retrans
		}
	})
	return o
}

func address(sa unix.Sockaddr) string {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port)).String()
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), uint16(sa.Port)).String()
	case *unix.SockaddrUnix:
		return "unix:" + sa.Name
	}
	return ""
}
