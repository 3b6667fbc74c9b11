package test

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/transport"
)

// liarVariable makes this program a destination that lies: "STEP:ACT".
const liarVariable = "VZKIT_TEST_LIAR"

// playLiar is the liar's side. It goes along honestly up to the step, does its
// act, and is gone.
func playLiar() {
	step, act, found := strings.Cut(os.Getenv(liarVariable), ":")
	if !found {
		return
	}
	l := liar{transport.NewConn(os.Stdin, os.Stdout), step, act}
	if err := l.play(); err != nil {
		fmt.Fprintln(os.Stderr, "liar:", err)
	}
	os.Exit(0)
}

type liar struct {
	*transport.Conn
	step, act string
}

// at does the act if this is the step, and does not return then.
func (l liar) at(step string) {
	if step != l.step {
		return
	}
	_, _ = os.Stdout.Write(acts[l.act])
	if l.act == "hang" {
		time.Sleep(time.Hour)
	}
	os.Exit(0)
}

// acts are what a liar writes in place of its next frame; nothing means that
// it just goes away.
var acts = map[string][]byte{
	"nothing":   nil,
	"text":      []byte("\x1b]0;title\aLast login: yesterday\nYou have new mail.\n"),
	"zeros":     make([]byte, 100_000),
	"truncated": frame(transport.TypeAccept, `{"a":"b"}`)[:15],
	"corrupt":   flipped(frame(transport.TypeAccept, `{"a":"b"}`), -2),
	"oversized": header(transport.TypeAccept, 1<<31-1),
	"unknown":   header(99, 0),
	"commit":    frame(transport.TypeCommit, "{}"),
	"resumed":   frame(transport.TypeResumed, "{}"),
	"error":     frame(transport.TypeError, fmt.Sprintf(`{"kind":%d,"message":"no\u001b[31m room\u0007","hint":"make room\nnow"}`, fault.NoSpace)),
	"bad error": frame(transport.TypeError, `{"kind":`),
}

func (l liar) play() error {
	l.at("start")
	_, _, err := l.Handshake(transport.Hello{Role: transport.RoleReceiver, HostID: "liar"})
	if err != nil {
		return err
	}
	l.at("hello")
	if err := l.ReadJSON(transport.TypeOffer, nil); err != nil {
		return err
	}
	l.at("offer")
	if err := l.WriteJSON(transport.TypeAccept, nil); err != nil {
		return err
	}
	if err := l.WriteJSON(transport.TypeBaseEnd, nil); err != nil {
		return err
	}
	for {
		typ, payload, err := l.ReadFrame()
		if err != nil {
			return err
		}
		switch typ {
		case transport.TypeFileData:
			l.at("within files")
		case transport.TypeFilesBegin:
			if bytes.Contains(payload, []byte("true")) {
				l.at("last files")
			}
		case transport.TypeFilesEnd:
			l.at("files")
			if err := l.WriteJSON(transport.TypeFilesDone, nil); err != nil {
				return err
			}
		case transport.TypeMemory:
			l.at("within rounds")
			if payload[0] == 2 { // the mark of a round, see package transport/memory
				l.at("rounds")
				if err := l.WriteJSON(transport.TypeRoundDone, nil); err != nil {
					return err
				}
			}
		case transport.TypePages:
			l.at("within memory")
		case transport.TypeMemoryEnd:
			l.at("memory")
		}
	}
}

// TestLyingDestination has a real source meet a liar. Whatever it does, the
// container runs on as if nothing had been.
func TestLyingDestination(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []string{"start", "hello", "offer", "within files", "files", "within rounds", "rounds", "within memory", "memory", "last files"} {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			c := running(t, takePair(t))
			c.dst.write(t, "/run/liar", "")
			c.dst.sh(t, "chmod 755 /run/liar")
			c.dst.hide(t, "/run/liar", binDir()+"/vzmigrate")
			book := c.keepBook(t)
			for act := range acts {
				c.dst.write(t, "/run/liar", fmt.Sprintf("#!/bin/sh\n%s=%q %s exec %s\n", liarVariable, step+":"+act, quickExit, self))
				o := c.migrate(t)
				o.wants(t, exitCode(act, o.code), "vzmigrate: error: ")
				if strings.ContainsAny(o.stdout+o.stderr, "\x1b\a") {
					t.Errorf("%s: terminal escapes get through: %q", act, o)
				}
				if act == "error" {
					o.wants(t, 31, c.dst.Name()+": no room\n", "hint: make room now\n")
				}
				c.runsAt(t, c.src)
			}
			book.isWhole(t)
			c.stays(t)
		})
	}
}

// exitCode is that of a source whose destination does act. One that sends a
// frame out of order and goes away may be noticed by either, so got counts.
func exitCode(act string, got int) int {
	const (
		connect  = 4
		protocol = 26
		space    = 31
	)
	switch act {
	case "nothing":
		return connect
	case "error":
		return space
	case "commit", "resumed":
		if got == connect {
			return connect
		}
	}
	return protocol
}
