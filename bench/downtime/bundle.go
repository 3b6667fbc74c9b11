package downtime

import (
	"bytes"
	"context"
	"encoding/json"

	"github.com/vzkit/vzkit/bench/hosts"
)

// systemCaps are what a distribution's init and its services need.
var systemCaps = []string{
	"CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD",
	"CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
}

// configure writes config.json, which is what `runc spec` makes and few
// changes.
func (p *runc) configure(ctx context.Context, host string, w workload) error {
	if err := p.sh(ctx, host, "rm -f BUNDLE/config.json; cd BUNDLE; runc spec"); err != nil {
		return err
	}
	var text bytes.Buffer
	if err := hosts.Run(p.rig.On(ctx, host, "cat", bundle+"/config.json"), &text); err != nil {
		return err
	}
	argv := w.hogArgs("/usr/bin/vzbench")
	if p.tree {
		argv = []string{"/sbin/init"}
	}
	spec, err := adapt(text.Bytes(), argv, p.tree)
	if err != nil {
		return err
	}
	write := p.rig.On(ctx, host, "cp", "/dev/stdin", bundle+"/config.json")
	write.Stdin = bytes.NewReader(spec)
	return hosts.Run(write, nil)
}

// specification is what of config.json there is, so that the rest is kept.
type specification struct {
	Process map[string]any   `json:"process"`
	Root    map[string]any   `json:"root"`
	Mounts  []map[string]any `json:"mounts"`
	Linux   map[string]any   `json:"linux"`
	Version string           `json:"ociVersion"`
	Host    string           `json:"hostname"`
	Hooks   map[string]any   `json:"hooks,omitempty"`
}

// adapt changes the specification that `runc spec` prints.
func adapt(text []byte, argv []string, system bool) ([]byte, error) {
	var spec specification
	if err := json.Unmarshal(text, &spec); err != nil {
		return nil, err
	}
	spec.Process["args"], spec.Process["terminal"] = argv, false
	delete(spec.Process, "rlimits") // CRIU may not raise them again
	spec.Root["readonly"] = false
	spec.Linux["namespaces"] = append(namespaces(), map[string]string{"type": "network", "path": "/run/netns/bench"})
	spec.Mounts = without(spec.Mounts, "/sys/fs/cgroup")
	if system {
		spec.inUserNamespace()
	}
	return json.MarshalIndent(spec, "", "\t")
}

// inUserNamespace changes the specification for a whole system, whose init and
// services would act on the host otherwise. Its network namespace belongs to
// its user namespace, so it cannot be made before: a hook plugs it in.
func (s *specification) inUserNamespace() {
	caps := map[string]any{}
	for _, set := range []string{"bounding", "effective", "permitted"} {
		caps[set] = systemCaps
	}
	s.Process["capabilities"], s.Process["noNewPrivileges"] = caps, false
	shift := []map[string]int{{"containerID": 0, "hostID": 100_000, "size": 65_536}} // vzkit's own
	s.Linux["uidMappings"], s.Linux["gidMappings"] = shift, shift
	s.Linux["namespaces"] = namespaces("user", "network")
	s.Hooks = map[string]any{"prestart": []map[string]any{{"path": "/bin/bash", "args": []string{"bash", bundle + "/plug"}}}}
	s.Mounts = without(s.Mounts, "/sys")
}

// namespaces are those of each container, and more.
func namespaces(more ...string) (list []map[string]string) {
	for _, kind := range append([]string{"pid", "ipc", "uts", "mount"}, more...) {
		list = append(list, map[string]string{"type": kind})
	}
	return list
}

// without leaves out a mount: what the workloads do not look at, and CRIU would
// take time for.
func without(mounts []map[string]any, destination string) (rest []map[string]any) {
	for _, m := range mounts {
		if m["destination"] != destination {
			rest = append(rest, m)
		}
	}
	return rest
}
