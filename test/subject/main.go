// Command subject runs inside a container that is moved. It holds what a
// checkpoint has to carry, one thing of each kind, and tells on request
// whether it still has them all and whether they still work.
//
// It answers lines on a TCP port:
//
//	check      "ok", or what is wrong
//	grow N     takes N MiB of memory more, filled with noise
//	hold KIND  takes something that cannot be checkpointed
//	drop       lets go of that again
//	churn      begins to change its memory in every way there is
package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: subject ADDRESS:PORT")
		os.Exit(2)
	}
	err := run(os.Args[1])
	fmt.Fprintln(os.Stderr, "subject:", err)
	os.Exit(1)
}

// run serves until it cannot go on.
func run(addr string) error {
	things, err := takeAll()
	if err != nil {
		return err
	}
	s := &subject{things: things}
	var config net.ListenConfig
	config.SetMultipathTCP(false) // Go's default, which CRIU cannot dump: see takeUndumpable
	l, err := config.Listen(context.Background(), "tcp", addr)
	if err != nil {
		return err
	}
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		s.serve(conn)
	}
}

type subject struct {
	things []thing
	grown  [][]byte
	stuck  []int // what takeUndumpable took
}

func (s *subject) serve(conn net.Conn) {
	defer conn.Close()
	lines := bufio.NewScanner(conn)
	for lines.Scan() {
		answer := "ok"
		if err := s.do(strings.Fields(lines.Text())); err != nil {
			answer = strings.ReplaceAll(err.Error(), "\n", "; ")
		}
		fmt.Fprintln(conn, answer)
	}
}

func (s *subject) do(words []string) error {
	switch words = append(words, "", ""); words[0] {
	case "check":
		return s.check()
	case "grow":
		return s.grow(words[1])
	case "hold":
		fds, err := takeUndumpable(words[1])
		s.stuck = append(s.stuck, fds...)
		return err
	case "drop":
		return s.drop()
	case "churn":
		c, err := startChurn()
		if err == nil {
			s.things = append(s.things, thing{"churn", c.check})
		}
		return err
	}
	return fmt.Errorf("unknown request %q", words[0])
}

func (s *subject) check() error {
	var errs []error
	for _, t := range s.things {
		if err := t.check(); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", t.name, err))
		}
	}
	return errors.Join(errs...)
}

func (s *subject) grow(mebibytes string) error {
	n, err := strconv.Atoi(mebibytes)
	if err != nil {
		return err
	}
	noise := make([]byte, n<<20)
	_, err = rand.Read(noise)
	s.grown = append(s.grown, noise)
	return err
}
