package migrate

import (
	"encoding/binary"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/transport"
)

// sendPackets sends what came for the container while it stood still. It is
// worth something only at once, so an error of the connection's is commit's.
func (s *source) sendPackets() {
	if s.frozen == nil || s.frozen.detour == nil {
		return
	}
	var payload []byte
	for _, p := range s.frozen.detour.End() {
		payload = binary.BigEndian.AppendUint32(payload, uint32(len(p)))
		payload = append(payload, p...)
	}
	if len(payload) > 0 {
		_ = s.peer.WriteFrame(transport.TypePackets, payload)
	}
}

// parsePackets takes the payload of a packets frame apart.
func parsePackets(payload []byte) (packets [][]byte, err error) {
	for len(payload) > 0 {
		if len(payload) < 4 || uint64(binary.BigEndian.Uint32(payload)) > uint64(len(payload)-4) {
			return nil, fault.New(fault.Protocol, "packets are cut off")
		}
		n := binary.BigEndian.Uint32(payload)
		packets = append(packets, append([]byte(nil), payload[4:4+n]...))
		payload = payload[4+n:]
	}
	return packets, nil
}
