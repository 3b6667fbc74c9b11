package dump

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestStranger: a process is a stranger if no parent of it is the init, also
// where its parents are in no list: those that are ending are not.
func TestStranger(t *testing.T) {
	cmd := exec.Command("sh", "-c", "(sleep 100 & echo $!; wait) & wait")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Wait() }()
	var grandchild int
	if _, err := fmt.Fscan(out, &grandchild); err != nil {
		t.Fatal(err)
	}
	defer unix.Kill(grandchild, unix.SIGKILL)
	if what := Stranger(cmd.Process.Pid, []int{grandchild, cmd.Process.Pid}); what != "" {
		t.Errorf("grandchild: %s", what)
	}
	if what := Stranger(cmd.Process.Pid, []int{cmd.Process.Pid, os.Getpid()}); !strings.Contains(what, "from outside") {
		t.Errorf("own process is said to be inside: %q", what)
	}
	const gone = 1 << 22 // pid_max is at most that
	if what := Stranger(cmd.Process.Pid, []int{gone}); what != "" {
		t.Errorf("process that has ended: %s", what)
	}
}
