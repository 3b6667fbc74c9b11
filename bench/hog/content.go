package hog

import (
	"fmt"
	"slices"

	"github.com/vzkit/vzkit/internal/fault"
)

const (
	pageSize  = 4096
	pageWords = pageSize / 8
)

// Content says what pages hold.
type Content string

// Kinds of content. Written pages are always random: pages of other kinds are
// never written.
const (
	Random Content = "random" // nothing a codec could shorten
	Mixed  Content = "mixed"  // of four pages two are zero, one is text, one random
)

// Check refuses a kind that does not exist.
func (c Content) Check() error {
	if !slices.Contains([]Content{Random, Mixed}, c) {
		return fault.New(fault.BadValue, "content %q unknown", string(c)).WithHint("It is %s or %s.", Random, Mixed)
	}
	return nil
}

// render makes the page of this number and version. A random page begins with
// both, as words.
func (c Content) render(page *[pageWords]uint64, number, version uint64) {
	switch {
	case c == Random || number%4 == 3:
		renderRandom(page, number, version)
	case number%4 == 2:
		renderText(page, number)
	default:
		clear(page[:])
	}
}

// mix is the finalizer of splitmix64.
//
//go:nosplit
//go:norace
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// step is the increment of splitmix64.
const step = 0x9e3779b97f4a7c15

// renderRandom may run in a child that has no runtime: see fork.
//
//go:nosplit
//go:norace
func renderRandom(page *[pageWords]uint64, number, version uint64) {
	page[0], page[1] = number, version
	x := mix(mix(number) + version)
	for i := 2; i < pageWords; i++ {
		x += step
		page[i] = mix(x)
	}
}

// isRandom tells whether a page is the random one of its number, whatever its
// version. It may run in a child that has no runtime: see fork.
//
//go:nosplit
//go:norace
func isRandom(page *[pageWords]uint64, number uint64) bool {
	if page[0] != number {
		return false
	}
	x := mix(mix(number) + page[1])
	for i := 2; i < pageWords; i++ {
		x += step
		if page[i] != mix(x) {
			return false
		}
	}
	return true
}

// daemons and outcomes are the vocabulary of the text: lines of a system log.
var (
	daemons  = []string{"sshd", "cron", "postfix/smtpd", "nginx", "kernel", "systemd", "dhclient", "named"}
	outcomes = []string{
		"connection from 10.0.%d.%d closed by remote host",
		"session opened for user root by (uid=%d), pid %d",
		"GET /index.html?id=%d HTTP/1.1 200 %d",
		"lease of 10.1.%d.%d renewed, bound until next interval",
	}
)

// renderText fills a page with lines of a log.
func renderText(page *[pageWords]uint64, number uint64) {
	text := make([]byte, 0, pageSize+256)
	for x := number * step; len(text) < pageSize; {
		x += step
		r := mix(x)
		text = fmt.Appendf(text, "Nov 20 09:%02d:%02d host %s[%d]: ", r%60, r>>8%60, daemons[r>>16%8], r>>24%4000)
		text = fmt.Appendf(text, outcomes[r>>40%4], r>>44%256, r>>52%256)
		text = append(text, '\n')
	}
	copy(bytesOf(page), text)
}
