// Package ssh is an SSH client that reaches a host the way `ssh NAME` would,
// and runs commands there whose input and output are plain streams.
//
//	t, err := ssh.Resolve("root@alpha", ssh.Options{})
//	c, err := ssh.Dial(ctx, t)
//	defer c.Close()
//	s, err := c.Start(ctx, []string{"tar", "-x"}, ssh.SessionOptions{Stderr: os.Stderr})
//
// The protocol is golang.org/x/crypto/ssh. What this package adds is the part
// of OpenSSH's client that users rely on without thinking of it.
//
// # Configuration
//
// If the machine has an OpenSSH client, `ssh -G NAME` resolves the name: it
// knows every keyword, Match blocks included, and is right by definition.
// Without one, github.com/kevinburke/ssh_config reads ~/.ssh/config and
// /etc/ssh/ssh_config; it knows Host, Include and the simple forms of Match and
// refuses the rest of Match. Either way these keywords take effect, and all
// others are ignored: AddressFamily, CertificateFile, ConnectTimeout,
// ForwardAgent (yes or no), GlobalKnownHostsFile, HashKnownHosts, HostKeyAlias,
// HostName, IdentitiesOnly, IdentityAgent, IdentityFile, Port, ProxyCommand,
// ProxyJump, ServerAliveCountMax, ServerAliveInterval, StrictHostKeyChecking,
// User, UserKnownHostsFile. Tokens are expanded as ssh_config(5) says, except
// %C and %j. The home directory is the one in the passwd entry, not $HOME.
//
// # Host keys
//
// Nothing is ever asked. An unknown host is refused with the known_hosts line
// to add, unless StrictHostKeyChecking is accept-new or no, which add the line
// themselves. A changed or revoked key is always refused, even with
// StrictHostKeyChecking no. A broken line in a known_hosts file is skipped, as
// ssh does.
//
// # Login
//
// Public keys only, in the order of ssh: those of the agent that an
// IdentityFile names, the agent's others, then the files. Passwords are not
// asked for.
//
// # Lost links
//
// Every KeepAlive the server is asked for a sign of life. A connection on which
// nothing was heard for KeepAliveMax such periods is closed, and everything
// that waits on it fails with ErrDeadPeer. Any byte counts as a sign of life,
// so a peer that is slow to answer because it is busy sending stays connected.
package ssh
