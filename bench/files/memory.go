package files

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/vzkit/vzkit/bench/hosts"
)

// peaks samples the highest resident memory (VmHWM, proc_pid_status(5)) of a
// program's processes on two hosts.
type peaks struct {
	program string
	hosts   [2]string // pid namespaces, as /proc shows them
	stop    chan struct{}
	wg      sync.WaitGroup
	seen    [2]map[int]uint64 // bytes by process
}

const lookEvery = 50 * time.Millisecond

// watchMemory looks at the source and the destination, in this order.
func (s *stage) watchMemory(program, from, to string) (*peaks, error) {
	p := &peaks{program: program, stop: make(chan struct{})}
	for i, host := range []string{from, to} {
		ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", s.Host(host).Pid()))
		if err != nil {
			return nil, fmt.Errorf("memory on %s: %w", host, err)
		}
		p.hosts[i], p.seen[i] = ns, map[int]uint64{}
	}
	p.wg.Go(p.watch)
	return p, nil
}

func (p *peaks) watch() {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		p.look()
		select {
		case <-p.stop:
			return
		case <-tick.C:
		}
	}
}

// look samples once. Processes that end meanwhile keep what was seen of them.
func (p *peaks) look() {
	dirs, _ := filepath.Glob("/proc/[0-9]*") // the pattern is right
	for _, dir := range dirs {
		comm, err := os.ReadFile(dir + "/comm")
		if err != nil || string(bytes.TrimSpace(comm)) != p.program {
			continue
		}
		ns, _ := os.Readlink(dir + "/ns/pid")
		status, _ := os.ReadFile(dir + "/status")
		pid, _ := strconv.Atoi(filepath.Base(dir))
		for i, host := range p.hosts {
			if ns == host {
				p.seen[i][pid] = max(p.seen[i][pid], highWater(status))
			}
		}
	}
}

// end stops sampling and returns what each process took at most.
func (p *peaks) end() (src, dst []uint64) {
	close(p.stop)
	p.wg.Wait()
	return values(p.seen[0]), values(p.seen[1])
}

func values(m map[int]uint64) (v []uint64) {
	for _, bytes := range m {
		v = append(v, bytes)
	}
	return v
}

// highWater reads VmHWM, which is in KiB.
func highWater(status []byte) uint64 {
	lines := bufio.NewScanner(bytes.NewReader(status))
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), "VmHWM:"); ok {
			n, _ := strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			return n << 10
		}
	}
	return 0
}

// memoryScene is a running container with very many empty files.
type memoryScene struct {
	*stage
	tree tree
}

func newMemory(s *stage) scene { return &memoryScene{s, tree{files: s.scaled(manyEmpty, filesInDir)}} }

func (m *memoryScene) set(ctx context.Context) error {
	if err := m.create(ctx, hosts.Minimal); err != nil {
		return err
	}
	return m.makeTree(ctx, m.tree, within)
}

func (m *memoryScene) run(ctx context.Context, n int) ([]Run, error) {
	return turns(n, func() ([]Run, error) { return m.ours(ctx, n) }, func() ([]Run, error) { return m.peers(ctx, n) })
}

// ours counts all processes of vzmigrate's.
func (m *memoryScene) ours(ctx context.Context, n int) ([]Run, error) {
	run := Run{Case: memory1m, Mover: vzkit, Number: n, Files: m.tree.files}
	if err := m.start(ctx); err != nil {
		return nil, err
	}
	watch, err := m.watchMemory("vzmigrate", hosts.Alpha, hosts.Beta)
	if err != nil {
		return nil, err
	}
	a, link, err := m.move(ctx, hosts.Alpha, hosts.Beta)
	src, dst := watch.end()
	if err != nil {
		return nil, err
	}
	run.took(a, a.files(), link)
	run.SrcPeak, run.DstPeak = sum(src), sum(dst)
	return []Run{run}, m.arrived(ctx, nil)
}

// peers counts the largest process on either side: those of rsync share memory.
func (m *memoryScene) peers(ctx context.Context, n int) ([]Run, error) {
	run := Run{Case: memory1m, Mover: peer, Number: n, Files: m.tree.files}
	watch, err := m.watchMemory(peer, hosts.Alpha, hosts.Beta)
	if err != nil {
		return nil, err
	}
	r, err := m.fresh(ctx)
	src, dst := watch.end()
	if err != nil {
		return nil, err
	}
	run.synced(r)
	run.SrcPeak, run.DstPeak = largest(src), largest(dst)
	return []Run{run}, m.dropCopy(ctx)
}

func sum(v []uint64) (all uint64) {
	for _, n := range v {
		all += n
	}
	return all
}

func largest(v []uint64) (most uint64) {
	for _, n := range v {
		most = max(most, n)
	}
	return most
}
