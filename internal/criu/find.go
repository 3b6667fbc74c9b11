package criu

import (
	"os"
	"os/exec"

	"github.com/checkpoint-restore/go-criu/v7/rpc"
	"google.golang.org/protobuf/proto"

	"github.com/vzkit/vzkit/internal/fault"
)

// Private is where scripts/setup puts a CRIU that it had to build.
const Private = "/usr/local/lib/vzkit/criu/sbin/criu"

// Find returns the path of the CRIU to use: $VZKIT_CRIU, the private build, or
// the one on PATH. The error's kind is fault.NoEngine.
func Find() (string, error) {
	if p := os.Getenv("VZKIT_CRIU"); p != "" {
		return p, nil
	}
	if _, err := os.Stat(Private); err == nil {
		return Private, nil
	}
	p, err := exec.LookPath("criu")
	if err != nil {
		return "", fault.New(fault.NoEngine, "no criu at %q or on PATH", Private).
			WithHint("Run scripts/setup, which finds or builds a CRIU that works on this kernel.")
	}
	return p, nil
}

// Version asks CRIU at path for its version, as major*10000+minor*100+sublevel.
// It fails where CRIU does not run at all, for example on a kernel whose vDSO
// it cannot read.
func Version(path string) (int, error) {
	resp, err := Do(path, Request{Type: rpc.CriuReqType_VERSION})
	if err != nil {
		return 0, fault.New(fault.NoEngine, "ask %q for its version: %w", path, err).
			WithHint("Run scripts/setup, which finds or builds a CRIU that works on this kernel.")
	}
	v := resp.GetVersion()
	return int(v.GetMajorNumber())*10000 + int(v.GetMinorNumber())*100 + int(v.GetSublevel()), nil
}

// Quiet are the options of requests that need none: they keep CRIU's log off
// the caller's directory.
func Quiet() *rpc.CriuOpts {
	return &rpc.CriuOpts{ImagesDirFd: proto.Int32(-1), ImagesDir: proto.String("/"), LogToStderr: proto.Bool(true)}
}

// CgroupMode is how CRIU deals with cgroups: it makes and fills those below the
// container's, or leaves them alone.
func CgroupMode(nested bool) *rpc.CriuCgMode {
	if nested {
		return rpc.CriuCgMode_SOFT.Enum()
	}
	return rpc.CriuCgMode_IGNORE.Enum()
}
