package ssh

import (
	"io"
	"net"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// asProxy makes the test binary the ProxyCommand: arguments are host and port.
const asProxy = "SSH_TEST_AS_PROXY"

func TestMain(m *testing.M) {
	if os.Getenv(asProxy) != "" {
		proxyMain(os.Args[1], os.Args[2])
		return
	}
	os.Unsetenv("SSH_AUTH_SOCK")
	goleak.VerifyTestMain(m)
}

func proxyMain(host, port string) {
	conn, err := net.Dial("tcp", net.JoinHostPort(host, port))
	if err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(3)
	}
	go func() {
		io.Copy(conn, os.Stdin)
		conn.(*net.TCPConn).CloseWrite()
	}()
	io.Copy(os.Stdout, conn)
}
