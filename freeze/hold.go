package freeze

import (
	"errors"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Hold drops every packet from and to a container while it cannot answer for
// itself: its kernel sockets would still acknowledge data that its checkpoint
// then lacks, and the sockets of killed tasks would send FIN or RST. To peers
// the hold looks like a short loss.
//
// It is an nftables table of the netdev family on the host's end of the link
// (ingress since Linux 4.2, egress since 5.16), so it sees every protocol and
// no rule of the host's can come before it.
type Hold struct{ link string }

// HoldLink holds the link, by the name of its host end. Holding twice is fine.
func HoldLink(link string) (*Hold, error) {
	h := &Hold{link}
	// Since Linux 6.16 nftables takes hooks on links that do not exist (yet).
	if _, err := netlink.LinkByName(link); err != nil {
		return nil, fmt.Errorf("find link %q: %w", link, err)
	}
	conn, err := nftables.New()
	if err != nil {
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	table := conn.AddTable(h.table())
	for _, hook := range hooks {
		chain := conn.AddChain(&nftables.Chain{
			Name: chainName(hook), Table: table, Type: nftables.ChainTypeFilter,
			Hooknum: hook, Priority: nftables.ChainPriorityFirst, Device: link,
		})
		conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
			&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop},
		}})
	}
	if err := conn.Flush(); err != nil {
		return nil, fmt.Errorf("hold link %q: %w", link, err)
	}
	return h, nil
}

var hooks = []*nftables.ChainHook{nftables.ChainHookIngress, nftables.ChainHookEgress}

func chainName(hook *nftables.ChainHook) string { return fmt.Sprintf("hook%d", *hook) }

func (h *Hold) table() *nftables.Table {
	return &nftables.Table{Name: "vz-hold-" + h.link, Family: nftables.TableFamilyNetdev}
}

// Release lets packets pass again. Releasing twice is fine.
func (h *Hold) Release() error { return ReleaseLink(h.link) }

// PassLink lets packets pass a hold, at once. To end it the kernel waits until
// no processor looks at its hooks any more, which takes some ten milliseconds:
// that can be left to ReleaseLink, later. No hold is fine.
func PassLink(link string) error {
	h := &Hold{link}
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	for _, hook := range hooks {
		conn.InsertRule(&nftables.Rule{
			Table: h.table(), Chain: &nftables.Chain{Name: chainName(hook)},
			Exprs: []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}},
		})
	}
	if err := conn.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("open hold of link %q: %w", link, err)
	}
	return nil
}

// ReleaseLink ends a hold that whoever made it may have left: it would catch
// the next link of that name, too. No hold is fine.
func ReleaseLink(link string) error {
	h := &Hold{link}
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	conn.DelTable(h.table())
	if err := conn.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("release link %q: %w", h.link, err)
	}
	return nil
}
