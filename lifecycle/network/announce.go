package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

var (
	broadcast = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	allNodes  = netip.MustParseAddr("ff02::1")
	// allNodesMAC is the multicast address of ff02::1 (RFC 2464, section 7).
	allNodesMAC = net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}
)

// Announce tells every network that one of the container's addresses belongs
// to that this host has it now: a gratuitous ARP request (RFC 5227, section 3)
// or an unsolicited neighbour advertisement (RFC 4861, section 7.2.6).
func (v Venet) Announce() error {
	var errs []error
	for _, a := range v.Addrs {
		links, err := Neighbours(a)
		errs = append(errs, err)
		for _, l := range links {
			if len(l.Attrs().HardwareAddr) == 6 {
				errs = append(errs, announce(a, l))
			}
		}
	}
	return errors.Join(errs...)
}

func announce(a netip.Addr, l netlink.Link) error {
	own := l.Attrs().HardwareAddr
	frame, to, protocol := gratuitousARP(a, own), broadcast, unix.ETH_P_ARP
	if a.Is6() {
		frame, to, protocol = unsolicitedNA(a, own), allNodesMAC, unix.ETH_P_IPV6
	}
	buf := gopacket.NewSerializeBuffer()
	opts := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	if err := gopacket.SerializeLayers(buf, opts, frame...); err != nil {
		return fmt.Errorf("encode announcement of %s: %w", a, err)
	}
	ifi := &net.Interface{Index: l.Attrs().Index, Name: l.Attrs().Name, HardwareAddr: own}
	conn, err := packet.Listen(ifi, packet.Raw, protocol, nil)
	if err != nil {
		return fmt.Errorf("announce %s on %s: %w", a, ifi.Name, err)
	}
	defer conn.Close()
	if _, err := conn.WriteTo(buf.Bytes(), &packet.Addr{HardwareAddr: to}); err != nil {
		return fmt.Errorf("announce %s on %s: %w", a, ifi.Name, err)
	}
	return nil
}

func gratuitousARP(a netip.Addr, own net.HardwareAddr) []gopacket.SerializableLayer {
	return []gopacket.SerializableLayer{
		&layers.Ethernet{SrcMAC: own, DstMAC: broadcast, EthernetType: layers.EthernetTypeARP},
		&layers.ARP{
			AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4,
			HwAddressSize: 6, ProtAddressSize: 4, Operation: layers.ARPRequest,
			SourceHwAddress: own, SourceProtAddress: a.AsSlice(),
			DstHwAddress: make([]byte, 6), DstProtAddress: a.AsSlice(),
		},
	}
}

func unsolicitedNA(a netip.Addr, own net.HardwareAddr) []gopacket.SerializableLayer {
	const override = 1 << 5 // replaces the entry peers have (RFC 4861, section 4.4)
	ip := &layers.IPv6{Version: 6, HopLimit: 255, NextHeader: layers.IPProtocolICMPv6, SrcIP: a.AsSlice(), DstIP: allNodes.AsSlice()}
	icmp := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(layers.ICMPv6TypeNeighborAdvertisement, 0)}
	_ = icmp.SetNetworkLayerForChecksum(ip) // cannot fail for IPv6
	return []gopacket.SerializableLayer{
		&layers.Ethernet{SrcMAC: own, DstMAC: allNodesMAC, EthernetType: layers.EthernetTypeIPv6},
		ip, icmp,
		&layers.ICMPv6NeighborAdvertisement{
			Flags: override, TargetAddress: a.AsSlice(),
			Options: layers.ICMPv6Options{{Type: layers.ICMPv6OptTargetAddress, Data: own}},
		},
	}
}
