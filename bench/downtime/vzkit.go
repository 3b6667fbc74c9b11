package downtime

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"

	"github.com/vzkit/vzkit/bench/hosts"
)

// ctid is the container's number.
const ctid = "101"

// vzkit is the mover that all this is about.
type vzkit struct {
	rig  *rig
	args []string // of vzmigrate
}

func (*vzkit) name() string { return "vzkit" }

func (v *vzkit) start(ctx context.Context, w workload) error {
	if err := v.rig.NeedTemplate(ctx, w.template); err != nil {
		return err
	}
	err := v.rig.Sh(ctx, alpha, `
		vzctl create CTID --ostemplate TEMPLATE --ipadd ADDRESS
		install -m 755 PROGRAM /var/lib/vz/private/CTID/usr/bin/vzbench
		vzctl start CTID
		vzctl exec2 CTID 'setsid HOG </dev/null >/dev/null 2>&1 &'`,
		"CTID", ctid, "TEMPLATE", w.template, "ADDRESS", address,
		"PROGRAM", v.rig.Program("vzbench"), "HOG", strings.Join(w.hogArgs("vzbench"), " "))
	if err != nil {
		return fmt.Errorf("start container: %w", err)
	}
	return nil
}

func (v *vzkit) move(ctx context.Context, from, to string) (a account, err error) {
	argv := append([]string{"vzmigrate", "--json"}, v.args...)
	var out bytes.Buffer
	if err := hosts.Run(v.rig.On(ctx, "admin", append(argv, from, to, ctid)...), &out); err != nil {
		return a, err
	}
	if err := json.Unmarshal(out.Bytes(), &a); err != nil {
		return a, fmt.Errorf("report of vzmigrate: %w", err)
	}
	return a, nil
}

func (v *vzkit) exec(ctx context.Context, host, command string) *exec.Cmd {
	return v.rig.On(ctx, host, "vzctl", "exec2", ctid, command)
}

// stop looks on both hosts: a move that failed may have left it on either.
func (v *vzkit) stop(ctx context.Context) error {
	var errs []error
	for _, host := range []string{alpha, beta} {
		errs = append(errs, v.rig.Sh(ctx, host, `
			case $(vzctl status CTID) in *deleted*) exit ;; esac
			vzctl stop CTID --fast || true
			vzctl destroy CTID`, "CTID", ctid))
	}
	return errors.Join(errs...)
}
