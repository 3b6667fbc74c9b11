package test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
)

// pair is two hosts that a test has for itself.
type pair struct{ src, dst host }

var pool = make(chan pair, pairs)

// fillPool makes pairs of the lab's hosts, and the template that containers
// are made from.
func fillPool(ctx context.Context) error {
	hosts := theLab.Hosts()
	for i := range pairs {
		pool <- pair{host{hosts[2*i]}, host{hosts[2*i+1]}}
	}
	build := hosts[0].Command(ctx, "vztmpl", "build", "minimal")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build template: %w\n%s", err, out)
	}
	return nil
}

// takePair waits for a free pair. It goes back at the end of the test, when
// nothing of the test's may be left on it.
func takePair(t testing.TB) pair {
	t.Helper()
	p := <-pool
	t.Cleanup(func() {
		defer func() { pool <- p }()
		for _, h := range p.both() {
			if left := h.leftovers(t); left != "" {
				t.Errorf("%s is not clean after the test:\n%s", h.Name(), left)
				h.scrub(t)
			}
		}
	})
	return p
}

// scrub removes what a failed test has left, for the tests that follow.
func (h host) scrub(t testing.TB) {
	if err := h.Reboot(context.Background()); err != nil {
		t.Error(err)
	}
	h.sh(t, "rm -rf /etc/vz/conf /var/lib/vz/handover /var/lib/vz/private /var/lib/vz/root /var/lib/vz/lock")
}

// leftovers lists what containers may leave on a host.
func (h host) leftovers(t testing.TB) string {
	t.Helper()
	return h.sh(t, `
		ls -d /run/vz/[0-9]*.json /run/vz/restore/* /run/vz/dump/* /run/vz/hold/* \
			/var/lib/vz/private/* /var/lib/vz/private/.[a-z]* /var/lib/vz/root/* /var/lib/vz/handover/*.json 2>/dev/null
		rm -f /etc/vz/conf/*.conf.migrated /etc/vz/conf/*.conf.destroyed /var/lib/vz/handover/*.adopted /var/lib/vz/handover/*.kept
		find /etc/vz/conf -type f 2>/dev/null
		awk '$2 ~ "^/(var/lib/vz/(root|private)|run/vz|usr/local/lib/vzkit|usr/s?bin|usr/local/s?bin|proc)/"' /proc/self/mounts
		ls -d /sys/fs/cgroup/*/vz/[0-9]* /sys/fs/cgroup/vz/[0-9]* 2>/dev/null
		ip -oneline link show | grep -o 'venet[0-9]*'
		ip route show table all | grep venet
		ip neigh show proxy
		nft list tables
		ps -eo comm | grep -E '^(vz|criu)'
		true`)
}

var lastNumber atomic.Uint32

// nextCTID is a CTID that no other container of the lab has, and its address.
func nextCTID() (ctid uint32, addr string) {
	n := 101 + lastNumber.Add(1)%150
	return n, fmt.Sprintf("198.18.77.%d", n)
}

// traces lists what is left of a container on a host, one thing a line. What
// an earlier, successful command keeps on purpose is none of it.
func (h host) traces(t testing.TB, c *container) string {
	t.Helper()
	return h.ok(t, "sh", "-c", strings.NewReplacer("@ID", fmt.Sprint(c.id), "@ADDR", c.addr).Replace(`
		vzctl status @ID | grep -vx 'CTID @ID deleted unmounted down'
		ls -d /etc/vz/conf/@ID.conf* /run/vz/@ID.json /run/vz/restore/* /run/vz/dump/* /run/vz/hold/* \
			/var/lib/vz/private/@ID /var/lib/vz/private/.*-@ID-* /var/lib/vz/root/@ID \
			/var/lib/vz/handover/@ID.json 2>/dev/null | grep -vE '\.conf\.(migrated|destroyed)$'
		grep -E '/var/lib/vz/root/@ID |/run/vz/(restore|dump)' /proc/self/mounts
		ls -d /sys/fs/cgroup/*/vz/@ID /sys/fs/cgroup/vz/@ID 2>/dev/null
		ip -oneline link show | grep -ow venet@ID
		ip route show table all | grep -w @ADDR
		ip neigh show proxy | grep -w @ADDR
		nft list tables | grep -w vz-hold-venet@ID
		true`))
}

// both are the pair's hosts.
func (p pair) both() []host { return []host{p.src, p.dst} }
