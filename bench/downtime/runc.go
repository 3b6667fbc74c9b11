package downtime

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/vzkit/vzkit/bench/hosts"
	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/internal/lab"
)

// runc is the peer: stop the container with `runc checkpoint`, copy the images
// with rsync, start it with `runc restore`. What can be ready before is: SSH
// connections, the network at the destination, a root that differs little.
// Images are in memory (/run is tmpfs on the hosts of a lab).
//
// The container's network namespace has the same address on each host; after
// the restore the route on admin is turned.
type runc struct {
	rig  *rig
	tree bool // the root is a whole system, which changes while it runs
}

// Paths on a host; every host has its own of them.
const (
	bundle  = "/var/lib/vz/bench"
	images  = "/run/bench-images"
	masters = "/run/bench-ssh"
	// criuDir comes first in runc's PATH: Debian's CRIU may not work here.
	criuDir = "/usr/local/lib/vzkit/criu/sbin"
)

func (*runc) name() string { return PeerRunc }

// vars are what stands in the scripts below.
func (p *runc) vars(more ...string) []string {
	return append([]string{
		"BUNDLE", bundle, "IMAGES", images, "MASTERS", masters, "CRIUDIR", criuDir, "ADDRESS", address,
	}, more...)
}

func (p *runc) start(ctx context.Context, w workload) error {
	if _, err := exec.LookPath("runc"); err != nil {
		return fault.New(fault.NoEngine, "no runc on this machine").
			WithHint("Install it with scripts/setup bench, or measure without: --peer none.")
	}
	p.tree = w.template != minimal
	for _, host := range []string{alpha, beta} {
		if err := p.prepare(ctx, host, w); err != nil {
			return err
		}
	}
	if err := p.turn(ctx, alpha); err != nil {
		return err
	}
	if err := p.sh(ctx, alpha, "runc run --detach --bundle BUNDLE bench </dev/null >/dev/null 2>&1"); err != nil {
		return err
	}
	if !p.tree {
		return nil
	}
	// As a child of the container's init: CRIU dumps no others.
	start := "setsid " + strings.Join(w.hogArgs("/usr/bin/vzbench"), " ") + " </dev/null >/dev/null 2>&1 &"
	return hosts.Run(p.exec(ctx, alpha, start), nil)
}

// sh runs a script in which runc finds the right CRIU.
func (p *runc) sh(ctx context.Context, host, script string, more ...string) error {
	return p.rig.Sh(ctx, host, "export PATH=CRIUDIR:$PATH\n"+script, p.vars(more...)...)
}

// prepare makes the bundle, the network and the SSH connections of a host.
func (p *runc) prepare(ctx context.Context, host string, w workload) error {
	if err := p.root(ctx, host, w); err != nil {
		return fmt.Errorf("make root: %w", err)
	}
	if err := p.configure(ctx, host, w); err != nil {
		return fmt.Errorf("write bundle: %w", err)
	}
	if err := p.network(ctx, host); err != nil {
		return err
	}
	return p.sh(ctx, host, `
		mkdir -p MASTERS
		for peer in alpha beta admin; do
			ssh -fNM -o ControlPath=MASTERS/$peer -o ControlPersist=yes $peer </dev/null >/dev/null 2>&1
		done`)
}

// root makes the container's root. That of a whole system is one of vzctl's,
// with its owners shifted; at the destination rsync makes it.
func (p *runc) root(ctx context.Context, host string, w workload) error {
	if err := p.sh(ctx, host, "rm -rf BUNDLE; mkdir -p BUNDLE/rootfs/usr/bin"); err != nil {
		return err
	}
	if p.tree && host == alpha {
		if err := p.rig.NeedTemplate(ctx, w.template); err != nil {
			return err
		}
		err := p.sh(ctx, host, `
			vzctl create CTID --ostemplate TEMPLATE
			rm -r BUNDLE/rootfs
			cp -a /var/lib/vz/private/CTID BUNDLE/rootfs
			vzctl destroy CTID`, "CTID", ctid, "TEMPLATE", w.template)
		if err != nil {
			return err
		}
	}
	return p.sh(ctx, host, "install -m 755 PROGRAM BUNDLE/rootfs/usr/bin/vzbench", "PROGRAM", p.rig.Program("vzbench"))
}

// network makes the container's network namespace anew, for `runc checkpoint`
// leaves its rules in it; or what plugs in that of a whole system.
func (p *runc) network(ctx context.Context, host string) error {
	if p.tree {
		return p.sh(ctx, host, "cat >BUNDLE/plug <<'PLUG'\n"+plugScript+"\nPLUG")
	}
	return p.sh(ctx, host, `
		ip netns del bench 2>/dev/null || true
		ip netns add bench
		ns=/run/netns/bench
		`+plugVeth)
}

// plugVeth gives the network namespace $ns the container's address.
const plugVeth = `
		ip link del benchveth 2>/dev/null || true
		ip link add benchveth type veth peer name eth0 netns $ns
		ip -batch - <<-END
			addr add 169.254.77.1/32 dev benchveth
			link set benchveth up
			route replace ADDRESS/32 dev benchveth
		END
		nsenter --net=$ns ip -batch - <<-END
			link set lo up
			addr add ADDRESS/32 dev eth0
			link set eth0 up
			route add 169.254.77.1 dev eth0
			route add default via 169.254.77.1
		END`

// plugScript is a hook: runc writes the container's state to it, as JSON.
const plugScript = `
		set -e
		ns=/proc/$(sed 's/.*"pid":\([0-9]*\).*/\1/')/ns/net
		` + plugVeth + `
`

// turn leads clients to the container on that host.
func (p *runc) turn(ctx context.Context, host string) error {
	return p.sh(ctx, lab.Admin, "ip route replace ADDRESS/32 via HOST", "HOST", p.rig.Host(host).Addr().String())
}

// moveScript runs at the source. Traffic is dropped meanwhile: the kernel
// would reset connections that no process holds any more.
const moveScript = `
	ssh="ssh -o ControlPath=MASTERS/TO"
	rm -rf IMAGES
	$ssh TO rm -rf IMAGES
	[ -z "TREE" ] || rsync -aHX --whole-file --numeric-ids --delete -e "ssh -o ControlPath=MASTERS/TO" BUNDLE/rootfs/ TO:BUNDLE/rootfs/
	ip route replace blackhole ADDRESS/32
	[ -z "TREE" ] || ip link set benchveth down # CRIU does not lock a network that it need not restore
	runc checkpoint OPTIONS --image-path IMAGES bench || { grep Error IMAGES/dump.log >&2; false; }
	chmod 755 IMAGES # for the root of a user namespace
	rsync -a --whole-file -e "ssh -o ControlPath=MASTERS/TO" IMAGES/ TO:IMAGES/
	[ -z "TREE" ] || rsync -aHX --whole-file --numeric-ids --delete -e "ssh -o ControlPath=MASTERS/TO" BUNDLE/rootfs/ TO:BUNDLE/rootfs/
	$ssh TO "PATH=CRIUDIR:$PATH runc restore --detach OPTIONS --image-path IMAGES --bundle BUNDLE bench </dev/null >/dev/null 2>&1"
	ssh -o ControlPath=MASTERS/admin admin ip route replace ADDRESS/32 via HOST`

func (p *runc) move(ctx context.Context, from, to string) (a account, err error) {
	tree, options := "", "--tcp-established --file-locks"
	if p.tree {
		tree, options = "yes", options+" --empty-ns network"
	}
	begin := time.Now()
	err = p.sh(ctx, from, moveScript, "TO", to, "TREE", tree, "OPTIONS", options, "HOST", p.rig.Host(to).Addr().String())
	a.Total = millis(time.Since(begin))
	if err == nil {
		err = errors.Join(p.network(ctx, from), p.sh(ctx, from, "rm -rf IMAGES"), p.sh(ctx, to, "rm -rf IMAGES"))
	}
	return a, err
}

func (p *runc) exec(ctx context.Context, host, command string) *exec.Cmd {
	return p.rig.On(ctx, host, "runc", "exec", "bench", "sh", "-c", command)
}

func (p *runc) stop(ctx context.Context) error {
	var errs []error
	for _, host := range []string{alpha, beta} {
		errs = append(errs, p.sh(ctx, host, `
			runc delete --force bench
			for master in MASTERS/*; do ssh -O exit -o ControlPath=$master x 2>/dev/null || true; done
			ip netns del bench 2>/dev/null || true
			ip link del benchveth 2>/dev/null || true
			ip route del ADDRESS/32 2>/dev/null || true
			rm -rf BUNDLE IMAGES`))
	}
	errs = append(errs, p.sh(ctx, lab.Admin, "ip route del ADDRESS/32 2>/dev/null || true"))
	return errors.Join(errs...)
}
