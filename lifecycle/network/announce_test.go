package network_test

import (
	"bytes"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/internal/undo"
)

// capture listens, at the neighbour, to frames of a protocol.
func (w *world) capture(protocol int) *packet.Conn {
	w.t.Helper()
	var conn *packet.Conn
	w.at(w.peer, func() {
		ifi, err := net.InterfaceByName("eth0")
		if err != nil {
			w.t.Fatal(err)
		}
		if conn, err = packet.Listen(ifi, packet.Raw, protocol, nil); err != nil {
			w.t.Fatal(err)
		}
	})
	w.t.Cleanup(func() { conn.Close() })
	if err := conn.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		w.t.Fatal(err)
	}
	return conn
}

// next returns the next frame that has what is looked for.
func (w *world) next(conn *packet.Conn, is func(gopacket.Packet) bool) gopacket.Packet {
	w.t.Helper()
	for {
		buf := make([]byte, 2048)
		n, _, err := conn.ReadFrom(buf)
		if err != nil {
			w.t.Fatal(err)
		}
		if p := gopacket.NewPacket(buf[:n], layers.LayerTypeEthernet, gopacket.Default); is(p) {
			return p
		}
	}
}

func (w *world) wantFrame(p gopacket.Packet, to string) {
	w.t.Helper()
	eth := p.Layer(layers.LayerTypeEthernet).(*layers.Ethernet)
	if !bytes.Equal(eth.SrcMAC, lanMAC) || eth.DstMAC.String() != to {
		w.t.Errorf("frame from %s to %s, want it from %s to %s", eth.SrcMAC, eth.DstMAC, lanMAC, to)
	}
	if p.ErrorLayer() != nil {
		w.t.Errorf("frame is damaged: %v", p.ErrorLayer().Error())
	}
}

// RFC 5227, section 3: a request whose sender and target are the address.
func TestAnnounceARP(t *testing.T) {
	w := newWorld(t, container4)
	conn := w.capture(unix.ETH_P_ARP)
	if err := w.venet.Announce(); err != nil {
		t.Fatal(err)
	}
	p := w.next(conn, func(p gopacket.Packet) bool { return p.Layer(layers.LayerTypeARP) != nil })
	w.wantFrame(p, "ff:ff:ff:ff:ff:ff")
	arp := p.Layer(layers.LayerTypeARP).(*layers.ARP)
	own := netip.MustParseAddr(container4).AsSlice()
	if arp.Operation != layers.ARPRequest || !bytes.Equal(arp.SourceHwAddress, lanMAC) ||
		!bytes.Equal(arp.SourceProtAddress, own) || !bytes.Equal(arp.DstProtAddress, own) {
		t.Errorf("announced %+v", arp)
	}
}

// RFC 4861, section 7.2.6: to all nodes, not solicited, overriding.
func TestAnnounceNA(t *testing.T) {
	w := newWorld(t, container6)
	conn := w.capture(unix.ETH_P_IPV6)
	if err := w.venet.Announce(); err != nil {
		t.Fatal(err)
	}
	own := netip.MustParseAddr(container6).AsSlice()
	p := w.next(conn, func(p gopacket.Packet) bool {
		na, ok := p.Layer(layers.LayerTypeICMPv6NeighborAdvertisement).(*layers.ICMPv6NeighborAdvertisement)
		return ok && na.TargetAddress.Equal(own)
	})
	w.wantFrame(p, "33:33:00:00:00:01")
	ip := p.Layer(layers.LayerTypeIPv6).(*layers.IPv6)
	if ip.HopLimit != 255 || !ip.SrcIP.Equal(own) || ip.DstIP.String() != "ff02::1" {
		t.Errorf("announced from %s to %s with hop limit %d", ip.SrcIP, ip.DstIP, ip.HopLimit)
	}
	na := p.Layer(layers.LayerTypeICMPv6NeighborAdvertisement).(*layers.ICMPv6NeighborAdvertisement)
	if na.Solicited() || !na.Override() || len(na.Options) != 1 ||
		na.Options[0].Type != layers.ICMPv6OptTargetAddress || !bytes.Equal(na.Options[0].Data, lanMAC) {
		t.Errorf("announced %+v", na)
	}
	if err := p.Layer(layers.LayerTypeICMPv6).(*layers.ICMPv6).SetNetworkLayerForChecksum(ip); err != nil {
		t.Fatal(err)
	}
	if err, wrong := p.VerifyChecksums(); err != nil || len(wrong) > 0 {
		t.Errorf("wrong checksums: %v, %v", wrong, err)
	}
}

// A container that has moved here answers under this host's address at once,
// though the neighbour knew another one.
func TestAnnounceCorrectsNeighbour(t *testing.T) {
	w := newWorld(t, container4, container6)
	var u undo.Stack
	w.connect(&u)
	w.at(w.peer, func() { w.mislead(container4, container6) })
	if err := w.venet.Announce(); err != nil {
		t.Fatal(err)
	}
	w.wantReach(w.peer, w.in, container4)
	w.wantReach(w.peer, w.in, container6)
}

// An address that is on no network of the host's is nobody's to hear.
func TestAnnounceFarther(t *testing.T) {
	w := newWorld(t, farther4)
	if err := w.venet.Announce(); err != nil {
		t.Error(err)
	}
}
