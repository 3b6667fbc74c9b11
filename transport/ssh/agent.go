package ssh

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"syscall"

	xssh "golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// agentKey is a key that the agent offers.
type agentKey struct {
	signer  xssh.Signer
	comment string
}

// askAgent connects to the agent and lists its keys. Closing ctx ends a wait
// for an agent that does not answer.
func (ids *identities) askAgent(ctx context.Context, socket string) []agentKey {
	if socket == "" {
		return nil
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		ids.skip("agent "+socket, errText(err))
		return nil
	}
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	a := agent.NewClient(conn)
	keys, err := list(a)
	if err != nil {
		conn.Close()
		ids.skip("agent "+socket, err.Error())
		return nil
	}
	if len(keys) == 0 {
		ids.skip("agent "+socket, "holds no keys")
	}
	ids.agent, ids.conn = a, conn
	return keys
}

func list(a agent.ExtendedAgent) ([]agentKey, error) {
	keys, err := a.List()
	if err != nil {
		return nil, err
	}
	signers, err := a.Signers()
	if err != nil {
		return nil, err
	}
	var out []agentKey
	for _, s := range signers {
		comment := xssh.FingerprintSHA256(s.PublicKey())
		for _, k := range keys {
			if sameKey(k, s.PublicKey()) && k.Comment != "" {
				comment = fmt.Sprintf("%q", k.Comment)
			}
		}
		out = append(out, agentKey{s, comment})
	}
	return out, nil
}

func (ids *identities) close() {
	if ids.conn != nil {
		ids.conn.Close()
	}
}

func ownedByUs(st os.FileInfo) bool {
	sys, ok := st.Sys().(*syscall.Stat_t)
	return ok && int(sys.Uid) == os.Getuid()
}

// errReadOnly is what the far side gets for anything but listing and signing.
var errReadOnly = errors.New("forwarded agent is read-only")

// forwardedAgent is what the far side sees as its agent: the real one if there
// is one and, once shared is set, the keys that were read from files here.
type forwardedAgent struct {
	ids    *identities
	shared atomic.Bool
}

var _ agent.ExtendedAgent = (*forwardedAgent)(nil)

// parts are the agents to ask, in order.
func (f *forwardedAgent) parts() (parts []agent.Agent) {
	if f.ids.agent != nil {
		parts = append(parts, f.ids.agent)
	}
	if f.shared.Load() {
		parts = append(parts, f.ids.keyring)
	}
	return parts
}

func (f *forwardedAgent) List() (all []*agent.Key, err error) {
	seen := map[string]bool{}
	for _, part := range f.parts() {
		keys, partErr := part.List()
		err = errors.Join(err, partErr)
		for _, k := range keys {
			if !seen[string(k.Blob)] {
				seen[string(k.Blob)] = true
				all = append(all, k)
			}
		}
	}
	if len(all) > 0 {
		return all, nil
	}
	return nil, err
}

func (f *forwardedAgent) Sign(key xssh.PublicKey, data []byte) (*xssh.Signature, error) {
	return f.SignWithFlags(key, data, 0)
}

func (f *forwardedAgent) SignWithFlags(key xssh.PublicKey, data []byte, flags agent.SignatureFlags) (*xssh.Signature, error) {
	err := errors.New("no agent holds the key")
	for _, part := range f.parts() {
		signer, ok := part.(agent.ExtendedAgent)
		if !ok {
			continue
		}
		sig, signErr := signer.SignWithFlags(key, data, flags)
		if signErr == nil {
			return sig, nil
		}
		err = signErr
	}
	return nil, err
}

func (f *forwardedAgent) Signers() (all []xssh.Signer, err error) {
	for _, part := range f.parts() {
		signers, partErr := part.Signers()
		all, err = append(all, signers...), errors.Join(err, partErr)
	}
	return all, err
}

func (f *forwardedAgent) Add(agent.AddedKey) error       { return errReadOnly }
func (f *forwardedAgent) Remove(xssh.PublicKey) error    { return errReadOnly }
func (f *forwardedAgent) RemoveAll() error               { return errReadOnly }
func (f *forwardedAgent) Lock(passphrase []byte) error   { return errReadOnly }
func (f *forwardedAgent) Unlock(passphrase []byte) error { return errReadOnly }

func (f *forwardedAgent) Extension(string, []byte) ([]byte, error) {
	return nil, agent.ErrExtensionUnsupported
}
