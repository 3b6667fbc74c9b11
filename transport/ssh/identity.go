package ssh

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"

	xssh "golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// maxKeyFile is far more than any key or certificate needs.
const maxKeyFile = 1 << 20

// identities are the keys to log in with.
type identities struct {
	signers []xssh.Signer // in the order in which to try them
	tried   []string      // what they are, for the error
	skipped []string      // what could not be used and why

	agent   agent.ExtendedAgent // nil if none
	conn    net.Conn            // to the agent
	keyring agent.Agent         // private keys read from files
}

// fileKey is what an identity file holds. Public is nil if even that is not
// known, signer if there is no private key that can be used.
type fileKey struct {
	path    string
	public  xssh.PublicKey
	signer  xssh.Signer
	problem string // why signer is nil
}

// loadIdentities reads the files and asks the agent. Nothing here is fatal:
// what cannot be used is noted for the error that the login may end in.
func (t *Target) loadIdentities(ctx context.Context) *identities {
	ids := &identities{keyring: agent.NewKeyring()}
	var files []fileKey
	for _, f := range t.identityFiles {
		key, raw := readKey(f.path)
		if key.problem == problemAbsent && f.isDefault {
			continue
		}
		files = append(files, key)
		if raw != nil {
			ids.keep(agent.AddedKey{PrivateKey: raw, Comment: f.path})
		}
		files = append(files, ids.certificates(key, raw, t.certFiles)...)
	}
	ids.order(ids.askAgent(ctx, t.agentSocket), files, t.identitiesOnly)
	return ids
}

func (ids *identities) keep(key agent.AddedKey) {
	if err := ids.keyring.Add(key); err != nil {
		ids.skip(key.Comment, err.Error())
	}
}

func (ids *identities) skip(what, why string) {
	ids.skipped = append(ids.skipped, fmt.Sprintf("%s (%s)", what, why))
}

// order puts the agent's keys that a file names first, then its others, then
// the files' own, as ssh does (pubkey_prepare in sshconnect2.c).
func (ids *identities) order(fromAgent []agentKey, files []fileKey, only bool) {
	isFile := func(k agentKey) bool {
		return slices.ContainsFunc(files, func(f fileKey) bool { return sameKey(f.public, k.signer.PublicKey()) })
	}
	for _, k := range fromAgent {
		if isFile(k) {
			ids.use("agent key "+k.comment, k.signer)
		}
	}
	for _, k := range fromAgent {
		if !only && !isFile(k) {
			ids.use("agent key "+k.comment, k.signer)
		}
	}
	for _, f := range files {
		inAgent := slices.ContainsFunc(fromAgent, func(k agentKey) bool { return sameKey(f.public, k.signer.PublicKey()) })
		switch {
		case inAgent:
		case f.signer == nil:
			ids.skip(f.path, f.problem)
		default:
			ids.use(f.path, f.signer)
		}
	}
}

func (ids *identities) use(what string, s xssh.Signer) {
	ids.signers = append(ids.signers, s)
	ids.tried = append(ids.tried, what)
}

func sameKey(a, b xssh.PublicKey) bool {
	return a != nil && b != nil && bytes.Equal(a.Marshal(), b.Marshal())
}

const (
	problemAbsent    = "no such file"
	problemEncrypted = "encrypted, and no agent holds it"
)

// readKey reads a private key file, or a public one whose private half an agent
// has. Raw is the private key, nil if there is no usable one.
func readKey(path string) (key fileKey, raw any) {
	key = fileKey{path: path, problem: problemAbsent}
	st, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		key.public = readPublic(path + ".pub")
		return key, nil
	}
	b, err := readSmall(path)
	if err != nil {
		key.problem = err.Error()
		return key, nil
	}
	if key.public = parsePublic(b); key.public != nil {
		key.problem = "a public key, and no agent holds the private one"
		return key, nil
	}
	if st.Mode().Perm()&0o077 != 0 && ownedByUs(st) {
		key.problem = fmt.Sprintf("mode %#o is too open", st.Mode().Perm())
		return key, nil
	}
	return parsePrivate(path, b)
}

func parsePrivate(path string, b []byte) (key fileKey, raw any) {
	key.path = path
	raw, err := xssh.ParseRawPrivateKey(b)
	var locked *xssh.PassphraseMissingError
	if errors.As(err, &locked) {
		key.problem, key.public = problemEncrypted, locked.PublicKey
		if key.public == nil {
			key.public = readPublic(path + ".pub")
		}
		return key, nil
	}
	if err == nil {
		key.signer, err = xssh.NewSignerFromKey(raw)
	}
	if err != nil {
		key.problem = err.Error()
		return key, nil
	}
	key.public = key.signer.PublicKey()
	return key, raw
}

// certificates returns the signers for the certificates of key: the one beside
// its file and those of CertificateFile.
func (ids *identities) certificates(key fileKey, raw any, more []string) (certs []fileKey) {
	if key.public == nil {
		return nil
	}
	for _, path := range append([]string{key.path + "-cert.pub"}, more...) {
		cert, ok := readPublic(path).(*xssh.Certificate)
		if !ok || !sameKey(cert.Key, key.public) {
			continue
		}
		c := fileKey{path: path, public: cert, problem: key.problem}
		if key.signer != nil {
			if s, err := xssh.NewCertSigner(cert, key.signer); err == nil {
				c.signer = s
				ids.keep(agent.AddedKey{PrivateKey: raw, Certificate: cert, Comment: path})
			}
		}
		certs = append(certs, c)
	}
	return certs
}

func readPublic(path string) xssh.PublicKey {
	b, err := readSmall(path)
	if err != nil {
		return nil
	}
	return parsePublic(b)
}

func parsePublic(b []byte) xssh.PublicKey {
	if strings.HasPrefix(string(b), "-----") {
		return nil
	}
	key, _, _, _, err := xssh.ParseAuthorizedKey(b)
	if err != nil {
		return nil
	}
	return key
}

// readSmall reads a regular file of at most maxKeyFile bytes.
func readSmall(path string) ([]byte, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() || st.Size() > maxKeyFile {
		return nil, fmt.Errorf("not a key file")
	}
	return os.ReadFile(path)
}
