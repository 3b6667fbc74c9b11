package cgroup

import "testing"

func TestControllers(t *testing.T) {
	for _, c := range []struct{ options, want string }{
		{"rw,cpu,cpuacct", "cpu,cpuacct"},
		{"rw,freezer", "freezer"},
		{"ro,memory", "memory"},
		{"rw,xattr,name=systemd", "name=systemd"},
		{"rw,xattr,release_agent=/lib/systemd/systemd-cgroups-agent,name=systemd", "name=systemd"},
		{"rw,cpuset,clone_children", "cpuset"},
		{"", ""},
	} {
		if got := controllers(c.options); got != c.want {
			t.Errorf("controllers(%q) = %q, want %q", c.options, got, c.want)
		}
	}
}
