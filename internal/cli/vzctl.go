package cli

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/internal/version"
	"github.com/vzkit/vzkit/lifecycle"
)

// vzctl is the program's streams and the host it works on; each command is a
// method.
type vzctl struct {
	program
	host   *lifecycle.Host
	quiet  bool
	status *int // exit code of a command in a container, if one ran
}

// Vzctl is the program vzctl(8) without its process: `vzctl COMMAND CTID
// [options]`. Exit codes are OpenVZ's.
func Vzctl(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	v := &vzctl{
		program: program{name: "vzctl", stdin: stdin, stdout: stdout, stderr: stderr, code: fault.VzctlCode, root: true},
		host:    lifecycle.Local(),
	}
	code := v.run(ctx, v.root(), args)
	if v.status != nil {
		return *v.status
	}
	return code
}

func (v *vzctl) root() *cobra.Command {
	root := &cobra.Command{
		Use:     "vzctl COMMAND CTID|NAME [options]",
		Short:   "Make, run and remove containers",
		Version: version.String,
		Long: `Make, run and remove containers.

Exit status, as OpenVZ's: 0 done, 3 system, 5 no CRIU or kernel support, 6 cgroup,
8 command failed (exec), 9 locked or handed away, 12 not allowed, 14 no such
container, 20 wrong command line, 21 bad value, 31 not running, 32 running,
33 does not stop, 34 network, 40 not mounted, 41 mounted, 44 exists already,
46 no space, 50 mount, 51 unmount, 78 address in use, 85 bad config,
91 no such template, 99 no loop devices or e2fsprogs, 105 disabled, 130 interrupted;
of images: 151 create, 152 mount, 153 unmount, 154 resize, 155 convert, 166 compact.`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			return fault.New(fault.Usage, "unknown command %q", args[0]).WithHint("vzctl --help lists the commands.")
		},
	}
	root.PersistentFlags().BoolVar(&v.quiet, "quiet", false, "say nothing but errors")
	root.AddCommand(v.create(), v.start(), v.stop(), v.restart(), v.destroy(), v.mount(), v.umount(), v.statusCommand(), v.checkpoint(),
		v.set(), v.convert(), v.compact(),
		v.exec("exec", "Run a shell command in a container; failure is exit code 8", shellWords),
		v.exec("exec2", "Run a shell command in a container; its exit code is the command's", shellWords),
		v.exec("exec3", "Run a program in a container, without a shell; its exit code is the program's", plainWords))
	return root
}

// say prints what has been done.
func (v *vzctl) say(format string, args ...any) {
	if !v.quiet {
		fmt.Fprintf(v.stdout, format+"\n", args...)
	}
}

// command makes a command that takes one container.
func (v *vzctl) command(use, short string, run func(context.Context, *lifecycle.Container) error) *cobra.Command {
	return &cobra.Command{
		Use: use + " CTID|NAME", Short: short, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := v.host.Find(args[0])
			if err != nil {
				return err
			}
			return run(cmd.Context(), c)
		},
	}
}

func (v *vzctl) create() *cobra.Command {
	var o lifecycle.CreateOptions
	cmd := &cobra.Command{
		Use: "create CTID", Short: "Make a container from an OS template", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := lifecycle.ParseCTID(args[0])
			if err != nil {
				return err
			}
			if _, err := v.host.Create(cmd.Context(), id, o); err != nil {
				return err
			}
			v.say("Container %d is created from %s.", id, o.Template)
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Template, "ostemplate", "", "OS template; vztmpl list shows them")
	f.StringArrayVar(&o.IPs, "ipadd", nil, "IP address, with or without a mask; may be repeated")
	f.StringVar(&o.Hostname, "hostname", "", "host name")
	f.StringVar(&o.Name, "name", "", "name by which commands find the container")
	f.StringVar(&o.Private, "private", "", "directory for its files; $VEID is replaced")
	f.StringVar(&o.Root, "root", "", "where they are mounted; $VEID is replaced")
	f.StringVar(&o.Layout, "layout", "", layoutHelp+"; default: VE_LAYOUT of vz.conf, or dir")
	f.StringVar(&o.Layout, "ve_layout", "", "the same")
	_ = f.MarkHidden("ve_layout") // vzctl(8)'s older name
	f.StringVar(&o.Space, "diskspace", "", "size of an image, such as 20G; default: DISKSPACE of vz.conf, or 10G")
	f.StringVar(&o.UID, "local_uid", "", "host uid of its root")
	f.StringVar(&o.GID, "local_gid", "", "host gid of its root")
	return cmd
}

func (v *vzctl) start() *cobra.Command {
	return v.command("start", "Boot a container", func(_ context.Context, c *lifecycle.Container) error {
		if err := c.Start(); err != nil {
			return err
		}
		v.say("Container %d is running.", c.ID)
		return nil
	})
}

func (v *vzctl) stop() *cobra.Command {
	var fast bool
	cmd := v.command("stop", "Halt a container", func(ctx context.Context, c *lifecycle.Container) error {
		if err := c.Stop(ctx, fast); err != nil {
			return err
		}
		v.say("Container %d is stopped.", c.ID)
		return nil
	})
	cmd.Flags().BoolVar(&fast, "fast", false, "kill its processes instead of shutting it down")
	return cmd
}

func (v *vzctl) restart() *cobra.Command {
	var fast bool
	cmd := v.command("restart", "Halt a container and boot it again", func(ctx context.Context, c *lifecycle.Container) error {
		if err := c.Stop(ctx, fast); err != nil {
			return err
		}
		if err := c.Start(); err != nil {
			return err
		}
		v.say("Container %d is running.", c.ID)
		return nil
	})
	cmd.Flags().BoolVar(&fast, "fast", false, "kill its processes instead of shutting it down")
	return cmd
}

func (v *vzctl) destroy() *cobra.Command {
	cmd := v.command("destroy", "Remove a stopped container and its files", func(_ context.Context, c *lifecycle.Container) error {
		if err := c.Destroy(); err != nil {
			return err
		}
		v.say("Container %d is removed.", c.ID)
		return nil
	})
	cmd.Aliases = []string{"delete"}
	return cmd
}

func (v *vzctl) mount() *cobra.Command {
	return v.command("mount", "Make a stopped container's files visible at its root", func(_ context.Context, c *lifecycle.Container) error {
		if err := c.Mount(); err != nil {
			return err
		}
		v.say("Container %d is mounted on %s.", c.ID, c.Root())
		return nil
	})
}

func (v *vzctl) umount() *cobra.Command {
	return v.command("umount", "Take down what mount made", func(_ context.Context, c *lifecycle.Container) error {
		if err := c.Umount(); err != nil {
			return err
		}
		v.say("Container %d is unmounted.", c.ID)
		return nil
	})
}

// statusCommand prints a line that scripts take apart by its words, also for a
// container that does not exist.
func (v *vzctl) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use: "status CTID|NAME", Short: "Tell whether a container exists, is mounted and runs", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			c, err := v.host.Find(args[0])
			if fault.KindOf(err) == fault.NoContainer {
				fmt.Fprintf(v.stdout, "CTID %s deleted unmounted down\n", args[0])
				return nil
			}
			if err != nil {
				return err
			}
			s, err := c.Status()
			if err != nil {
				return err
			}
			words := []string{pick(s.Exists, "exist", "deleted"), pick(s.Mounted, "mounted", "unmounted"), pick(s.Running, "running", "down")}
			if h, err := c.Handover(); err != nil {
				return err
			} else if h != nil {
				words = append(words, "handed to "+h.To)
			}
			fmt.Fprintf(v.stdout, "CTID %d %s\n", c.ID, strings.Join(words, " "))
			return nil
		},
	}
}

func pick(b bool, yes, no string) string {
	if b {
		return yes
	}
	return no
}

// shellWords are the arguments that have a shell run a command line; "-" has
// it read a script from its input.
func shellWords(args []string) []string {
	if len(args) == 1 && args[0] == "-" {
		return []string{"/bin/sh", "-s"}
	}
	line := strings.Join(args, " ")
	// bash where the container has it, as OpenVZ's scripts expect
	return []string{"/bin/sh", "-c", `if [ -x /bin/bash ]; then exec /bin/bash -c "$0"; else eval "$0"; fi`, line}
}

func plainWords(args []string) []string { return args }

// exec runs a command in a container. Everything behind the container is the
// command's, options too.
func (v *vzctl) exec(name, short string, words func([]string) []string) *cobra.Command {
	cmd := &cobra.Command{
		Use: name + " CTID|NAME COMMAND [ARG...]", Short: short, Args: cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := v.host.Find(args[0])
			if err != nil {
				return err
			}
			status, err := c.Exec(cmd.Context(), words(args[1:]), v.stdin, v.stdout, v.stderr)
			if err != nil {
				return err
			}
			if name == "exec" && status != 0 {
				status = fault.VzctlCode(fault.New(fault.Command, "command failed"))
			}
			v.status = &status
			return nil
		},
	}
	cmd.Flags().SetInterspersed(false)
	return cmd
}
