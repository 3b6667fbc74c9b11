package test

import (
	"context"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestScripts runs the scripts of testdata/script. Each has a pair of hosts,
// SRC and DST, and the numbers and addresses of two containers, ID and ADDR,
// ID2 and ADDR2. It must leave the hosts clean. The suite's own command is
//
//	on HOST CODE COMMAND [ARGUMENT...]
//
// which runs the command on the host, without input, and wants that exit code.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:   "testdata/script",
		Setup: setUpScript,
		Cmds:  map[string]func(*testscript.TestScript, bool, []string){"on": on},
	})
}

func setUpScript(env *testscript.Env) error {
	p := takePair(env.T().(testing.TB))
	env.Setenv("SRC", p.src.Name())
	env.Setenv("DST", p.dst.Name())
	for _, suffix := range []string{"", "2"} {
		id, addr := nextCTID()
		env.Setenv("ID"+suffix, strconv.Itoa(int(id)))
		env.Setenv("ADDR"+suffix, addr)
	}
	env.Setenv("VZLAB_DIR", theLab.Dir)
	env.Setenv("BIN", binDir())
	return nil
}

func on(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: on HOST CODE COMMAND [ARGUMENT...]")
	}
	h, err := theHost(args[0])
	ts.Check(err)
	want, err := strconv.Atoi(args[1])
	ts.Check(err)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := h.Command(ctx, args[2:]...)
	cmd.Env = append(cmd.Env, quickExit)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(""), ts.Stdout(), ts.Stderr()
	if err := cmd.Run(); cmd.ProcessState == nil {
		ts.Fatalf("%v", err)
	}
	if got := cmd.ProcessState.ExitCode(); got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}
