package downtime

import (
	"fmt"

	"github.com/vzkit/vzkit/bench/probe"
)

// hostMemory watches what two hosts take during a move.
type hostMemory struct {
	src, dst             *probe.Memory
	srcBefore, dstBefore uint64
}

func (r *rig) watchMemory(from, to string) (*hostMemory, error) {
	m := new(hostMemory)
	for _, h := range []struct {
		name   string
		memory **probe.Memory
		before *uint64
	}{{from, &m.src, &m.srcBefore}, {to, &m.dst, &m.dstBefore}} {
		memory, err := probe.OfHost(r.Host(h.name).Pid())
		if err == nil {
			*h.before, err = memory.Now()
		}
		if err != nil {
			return nil, fmt.Errorf("memory of %s: %w", h.name, err)
		}
		*h.memory = memory
	}
	m.src.Start()
	m.dst.Start()
	return m, nil
}

func (m *hostMemory) stop(run *Run) {
	run.SrcPeak = above(m.src.Stop(), m.srcBefore)
	run.DstPeak = above(m.dst.Stop(), m.dstBefore)
	if after, err := m.src.Now(); err == nil {
		run.Container = above(m.srcBefore, after)
	}
}

// above is a-b, or 0.
func above(a, b uint64) uint64 { return a - min(a, b) }
