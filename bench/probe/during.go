package probe

import (
	"fmt"
	"net"
	"time"
)

// How long a container is watched before and after what is done to it, and how
// long it may take to answer then.
const (
	watchBefore = 1200 * time.Millisecond
	watchAfter  = 1500 * time.Millisecond
	answerIn    = 2 * time.Minute
)

// During watches on a fresh connection to an echo server while something is
// done, and some time before and after. Its error comes first.
func During(conn net.Conn, do func() error) (Seen, error) {
	echo, err := Start(conn)
	if err != nil {
		return Seen{}, err
	}
	time.Sleep(watchBefore)
	done := do()
	if done == nil {
		echo.CaughtUp(answerIn) // if not, Stop says so
		time.Sleep(watchAfter)
	}
	seen, err := echo.Stop()
	if done != nil {
		return seen, done
	}
	if err != nil {
		return seen, fmt.Errorf("client outside: %w", err)
	}
	return seen, nil
}
