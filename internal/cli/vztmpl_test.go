package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vzkit/vzkit/lifecycle/template"
)

func TestVztmpl(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "template")
	run := func(want int, args ...string) (stdout, stderr string) {
		t.Helper()
		var out, err bytes.Buffer
		code := Vztmpl(context.Background(), append([]string{"--dir", dir}, args...), strings.NewReader(""), &out, &err)
		if code != want {
			t.Errorf("%q: exit code %d, want %d: %s", args, code, want, err.String())
		}
		return out.String(), err.String()
	}
	if out, _ := run(0, "list", "-j"); out != "[]\n" {
		t.Errorf("empty list: %q", out)
	}
	if _, err := run(91, "path", "minimal"); !strings.Contains(err, "no template \"minimal\"\n") || !strings.Contains(err, "hint: ") {
		t.Errorf("unknown: %q", err)
	}
	out, err := run(0, "build", "minimal", "--as", "mine")
	if !strings.HasPrefix(out, "mine: 1 packages, ") || strings.Count(err, "\n") != 2 {
		t.Errorf("build: %q, %q", out, err)
	}
	var info template.Info
	if out, _ := run(0, "info", "mine"); json.Unmarshal([]byte(out), &info) != nil || info.Name != "mine" {
		t.Errorf("info: %q", out)
	}
	if out, _ := run(0, "list"); !strings.Contains(out, "\nmine  busybox ") {
		t.Errorf("list: %q", out)
	}
	if out, _ := run(0, "path", "mine"); out != filepath.Join(dir, "cache/mine.tar.zst")+"\n" {
		t.Errorf("path: %q", out)
	}
	run(0, "remove", "mine")
	run(91, "remove", "mine")
	run(91, "build", "centos-7")
	run(21, "build", "minimal", "--include", "redis-server")
	run(21, "info", "../x")
	run(20, "build")
	run(20, "list", "--wrong")
	run(20, "unknown")
}
