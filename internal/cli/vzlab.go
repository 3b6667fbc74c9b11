package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/internal/lab"
	"github.com/vzkit/vzkit/internal/version"
)

const vzlabHelp = `vzlab makes hosts on one machine: alpha, beta, gamma, ... and admin, each
with its own address, sshd, /etc/vz, /var/lib/vz, /run and cgroups. They know
each other: on any of them, "ssh beta" works.

  vzlab up 2                      bring up alpha and beta, or mend them
  vzlab exec alpha -- vzlist -a   run a command on a host
  vzlab ssh-config >lab.conf      then, from the machine: ssh -F lab.conf beta
  vzlab down                      leave nothing behind but the templates

Exit status: 0, that of the command with exec (125: the host could not be
entered), 20 for wrong usage, 21 for a wrong value, 31 where there is no lab.`

// vzlab is one call of the program.
type vzlab struct {
	program
	dir    string
	status int // exit code of a command on a host, if one ran
}

// Vzlab is the program vzlab. It returns the exit status.
func Vzlab(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	v := &vzlab{program: program{name: "vzlab", stdin: stdin, stdout: stdout, stderr: stderr, code: fault.VzctlCode, raw: true}}
	code := v.run(ctx, v.root(), args)
	if v.status != 0 {
		return v.status
	}
	return code
}

func (v *vzlab) root() *cobra.Command {
	root := &cobra.Command{
		Use: "vzlab", Short: "Hosts for trying migrations out, on one machine", Long: vzlabHelp, Version: version.String,
	}
	dir := os.Getenv("VZLAB_DIR")
	if dir == "" {
		dir = lab.DefaultDir
	}
	root.PersistentFlags().StringVar(&v.dir, "dir", dir, "the lab's state directory; also $VZLAB_DIR")
	root.PersistentFlags().Lookup("dir").DefValue = lab.DefaultDir
	root.AddCommand(v.up(), v.down(), v.list(), v.exec(), v.sshConfig(), v.connect(), v.reboot())
	return root
}

func (v *vzlab) up() *cobra.Command {
	return &cobra.Command{
		Use: "up [N]", Short: "Bring up N hosts (2), or mend and extend a lab", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg := lab.Config{Dir: v.dir, Log: v.stdout}
			if len(args) == 1 {
				n, err := strconv.Atoi(args[0])
				if err != nil || n < 1 {
					return fault.New(fault.BadValue, "number of hosts %q is no positive number", args[0]).
						WithHint("A lab has 1 to %d hosts.", lab.MaxHosts)
				}
				cfg.Hosts = n
			}
			_, err := lab.Up(cmd.Context(), cfg)
			return err
		},
	}
}

func (v *vzlab) down() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use: "down", Short: "Kill all hosts and remove the lab, but keep its templates", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return lab.Down(cmd.Context(), v.dir, all) },
	}
	cmd.Flags().BoolVar(&all, "all", false, "remove the templates too")
	return cmd
}

// hostStatus is one host in the output of status.
type hostStatus struct {
	Name    string `json:"name"`
	Addr    string `json:"addr"`
	Addr6   string `json:"addr6"`
	Pid     int    `json:"pid"`
	Running bool   `json:"running"`
}

func (v *vzlab) list() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "status", Short: "List the hosts", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			l, err := lab.Open(v.dir)
			if err != nil {
				return err
			}
			return v.print(l.Hosts(), asJSON)
		},
	}
	cmd.Flags().BoolVarP(&asJSON, "json", "j", false, "print JSON")
	return cmd
}

func (v *vzlab) print(hosts []*lab.Host, asJSON bool) error {
	var list []hostStatus
	for _, h := range hosts {
		pid := h.Pid()
		list = append(list, hostStatus{h.Name(), h.Addr().String(), h.Addr6().String(), pid, pid != 0})
	}
	if asJSON {
		return json.NewEncoder(v.stdout).Encode(list)
	}
	for _, s := range list {
		word := "down"
		if s.Running {
			word = fmt.Sprintf("running (pid %d)", s.Pid)
		}
		fmt.Fprintf(v.stdout, "%-8s %-13s %-12s %s\n", s.Name, s.Addr, s.Addr6, word)
	}
	return nil
}

func (v *vzlab) host(name string) (*lab.Host, error) {
	l, err := lab.Open(v.dir)
	if err != nil {
		return nil, err
	}
	return l.Host(name)
}

func (v *vzlab) exec() *cobra.Command {
	cmd := &cobra.Command{
		Use: "exec HOST -- CMD...", Short: "Run a command on a host", Args: cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, argv := args[0], args[1:]
			if argv[0] == "--" {
				argv = argv[1:]
			}
			if len(argv) == 0 {
				return fault.New(fault.Usage, "no command to run on %q", name).
					WithHint("Say which, for example: vzlab exec %s -- vzlist -a", name)
			}
			h, err := v.host(name)
			if err != nil {
				return err
			}
			// Signals reach the command; it decides what becomes of it.
			c := h.Command(context.WithoutCancel(cmd.Context()), argv...)
			c.Stdin, c.Stdout, c.Stderr = v.stdin, v.stdout, v.stderr
			v.status, err = lab.Run(c)
			return err
		},
	}
	cmd.Flags().SetInterspersed(false)
	return cmd
}

func (v *vzlab) sshConfig() *cobra.Command {
	return &cobra.Command{
		Use: "ssh-config", Short: "Print an ssh_config for the machine itself", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			l, err := lab.Open(v.dir)
			if err != nil {
				return err
			}
			_, err = io.WriteString(v.stdout, l.SSHConfig())
			return err
		},
	}
}

func (v *vzlab) connect() *cobra.Command {
	return &cobra.Command{
		Use: "connect HOST", Short: "Join standard input and output to a host's sshd", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			h, err := v.host(args[0])
			if err != nil {
				return err
			}
			conn, err := h.DialSSH(cmd.Context())
			if err != nil {
				return fault.Wrap(fault.Connect, err)
			}
			defer conn.Close()
			go func() {
				_, _ = io.Copy(conn, v.stdin)
				if half, ok := conn.(interface{ CloseWrite() error }); ok {
					_ = half.CloseWrite()
				}
			}()
			_, err = io.Copy(v.stdout, conn)
			return err
		},
	}
}

func (v *vzlab) reboot() *cobra.Command {
	return &cobra.Command{
		Use: "reboot HOST", Short: "Kill everything on a host and start it again", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			h, err := v.host(args[0])
			if err != nil {
				return err
			}
			return h.Reboot(cmd.Context())
		},
	}
}
