package files

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/vzkit/vzkit/bench/hosts"
)

// peer is who we are compared with.
const peer = "rsync"

// masters is where OpenSSH's connections are, on each host.
const masters = "/run/bench-ssh"

// connect makes the SSH connections that rsync uses: what we need for ours is
// not in the time of the passes either.
func (s *stage) connect(ctx context.Context) error {
	for from, to := range map[string]string{hosts.Alpha: hosts.Beta, hosts.Beta: hosts.Alpha} {
		err := s.Sh(ctx, from, `
			mkdir -p MASTERS
			ssh -fNM -c CIPHER -o ControlPath=MASTERS/TO -o ControlPersist=yes TO </dev/null >/dev/null 2>&1`,
			"MASTERS", masters, "CIPHER", cipher, "TO", to)
		if err != nil {
			return fmt.Errorf("connect to %s: %w", to, err)
		}
	}
	return nil
}

// sameSecond is the time that lies between what rsync copied and the next
// change: of the same second and size, a file is the same to it (rsync(1),
// --modify-window).
const sameSecond = 1100 * time.Millisecond

// synced is what rsync did.
type synced struct {
	ms   float64
	wire uint64 // sent and received, by its own account
	link uint64 // between the hosts
}

// rsyncScript prints the time before and after, in microseconds, too.
const rsyncScript = `
	export LC_ALL=C
	begin=${EPOCHREALTIME/./}
	rsync -aHAX --numeric-ids --delete --stats MORE -e "ssh -c CIPHER -o ControlPath=MASTERS/TO" PRIVATE/ TO:COPIED/
	echo "microseconds: $((${EPOCHREALTIME/./} - begin))"`

// rsync copies the private area to the other host.
func (s *stage) rsync(ctx context.Context, from, to string, more ...string) (r synced, err error) {
	if err := s.settle(); err != nil {
		return r, err
	}
	script := strings.NewReplacer("MORE", strings.Join(more, " "), "CIPHER", cipher, "MASTERS", masters,
		"TO", to, "PRIVATE", private, "COPIED", copied).Replace(rsyncScript)
	cmd := s.On(ctx, from, "bash", "-ec", script)
	before, err := s.linkBytes(from)
	if err != nil {
		return r, err
	}
	var out bytes.Buffer
	if err := hosts.Run(cmd, &out); err != nil {
		return r, err
	}
	after, err := s.linkBytes(from)
	if err != nil {
		return r, err
	}
	r, err = parseStats(out.String())
	r.link = after - before
	return r, err
}

var stats = regexp.MustCompile(`(?m)^(Total bytes sent|Total bytes received|microseconds): ([0-9,]+)$`)

// parseStats reads the output of the script.
func parseStats(text string) (r synced, err error) {
	found := stats.FindAllStringSubmatch(text, -1)
	if len(found) != 3 {
		return r, fmt.Errorf("rsync --stats says %q", text)
	}
	for _, f := range found {
		n, err := strconv.ParseUint(strings.ReplaceAll(f[2], ",", ""), 10, 63)
		if err != nil {
			return r, fmt.Errorf("rsync --stats: %w", err)
		}
		if f[1] == "microseconds" {
			r.ms = millis(time.Duration(n) * time.Microsecond)
		} else {
			r.wire += n
		}
	}
	return r, nil
}

func millis(d time.Duration) float64 {
	return float64(d.Round(time.Microsecond)) / float64(time.Millisecond)
}

// linkBytes are those that a host has received and sent so far.
func (s *stage) linkBytes(host string) (uint64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/dev", s.Host(host).Pid()))
	if err != nil {
		return 0, err
	}
	return interfaceBytes(string(text), "eth0")
}

// interfaceBytes adds up a line of /proc/net/dev: the first number is of bytes
// received, the ninth of bytes sent (proc_pid_net(5)).
func interfaceBytes(text, name string) (uint64, error) {
	for line := range strings.Lines(text) {
		iface, numbers, _ := strings.Cut(strings.TrimSpace(line), ":")
		fields := strings.Fields(numbers)
		if iface != name || len(fields) < 9 {
			continue
		}
		in, err := strconv.ParseUint(fields[0], 10, 64)
		if err != nil {
			return 0, err
		}
		out, err := strconv.ParseUint(fields[8], 10, 64)
		return in + out, err
	}
	return 0, fmt.Errorf("no interface %q", name)
}

var version = regexp.MustCompile(`version (\S+)`)

// rsyncVersion is "" if there is none.
func rsyncVersion(ctx context.Context) string {
	out, _ := exec.CommandContext(ctx, "rsync", "--version").Output()
	if found := version.FindSubmatch(out); found != nil {
		return string(found[1])
	}
	return ""
}
