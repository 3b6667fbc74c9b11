package hog

import (
	"context"
	"fmt"
	"net"
	"time"
)

// Client asks a hog.
type Client struct {
	Dial func(ctx context.Context) (net.Conn, error) // to its control port
}

// answerIn bounds the wait for an answer: checking takes a second or two a GiB.
const answerIn = 2 * time.Minute

// Reset forgets gaps and samples.
func (c Client) Reset(ctx context.Context) error {
	_, err := c.ask(ctx, "reset")
	return err
}

// Report returns the longest gaps and the samples since the last Reset.
func (c Client) Report(ctx context.Context) (Report, error) { return c.ask(ctx, "report") }

// Verify has all memory checked. It is an error if anything in it is wrong.
func (c Client) Verify(ctx context.Context) error {
	r, err := c.ask(ctx, "verify")
	if err != nil {
		return err
	}
	return r.Check()
}

// Check tells what is wrong with the memory that the command verify has found.
func (r Report) Check() error {
	switch {
	case r.Silent > 0:
		return fmt.Errorf("%d processes lost", r.Silent)
	case r.Bad > 0:
		return fmt.Errorf("%d of %d pages wrong", r.Bad, r.Pages)
	case r.Versions != r.Done:
		return fmt.Errorf("%d writes done, pages have %d", r.Done, r.Versions)
	}
	return nil
}

func (c Client) ask(ctx context.Context, command string) (r Report, err error) {
	conn, err := c.Dial(ctx)
	if err != nil {
		return r, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(answerIn)); err != nil {
		return r, err
	}
	if _, err := fmt.Fprintln(conn, command); err != nil {
		return r, fmt.Errorf("ask for %s: %w", command, err)
	}
	if r, err = readReport(conn); err != nil {
		return r, fmt.Errorf("answer to %s: %w", command, err)
	}
	return r, nil
}
