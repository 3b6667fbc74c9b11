package downtime

import (
	"context"
	"fmt"

	"github.com/vzkit/vzkit/bench/hosts"
)

// address is the container's, in the lab's network.
const address = "198.18.77.101"

const (
	alpha = hosts.Alpha
	beta  = hosts.Beta
)

// rig is the lab.
type rig struct{ *hosts.Rig }

// limit bounds what each host sends to that many bits a second; 0 lifts it.
func (r *rig) limit(ctx context.Context, bits int64) error {
	script := "tc qdisc del dev eth0 root 2>/dev/null || true"
	if bits > 0 {
		script = "tc qdisc replace dev eth0 root tbf rate RATEbit burst 256k latency 50ms"
	}
	for _, host := range []string{alpha, beta} {
		if err := r.Sh(ctx, host, script, "RATE", fmt.Sprint(bits)); err != nil {
			return err
		}
	}
	return nil
}
