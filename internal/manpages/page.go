package main

import (
	"fmt"
	"strings"

	"github.com/cpuguy83/go-md2man/v2/md2man"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// render makes the page of a program. It has no date and no version, so that
// it changes with the program's words only.
func render(root *cobra.Command, more string, all []*cobra.Command) []byte {
	root.InitDefaultHelpFlag()
	root.InitDefaultVersionFlag()
	var b strings.Builder
	fmt.Fprintf(&b, "%% %q \"8\" \"\" \"vzkit\" \"vzkit\"\n", strings.ToUpper(root.Name()))
	fmt.Fprintf(&b, "# NAME\n%s \\- %s\n\n", root.Name(), uncapital(root.Short))
	synopsis(&b, root)
	description(&b, root)
	options(&b, "OPTIONS", root)
	if commands := root.Commands(); len(commands) > 0 {
		b.WriteString("# COMMANDS\n")
		for _, cmd := range commands {
			command(&b, cmd)
		}
	}
	exitStatus(&b, root)
	b.WriteString(more + "\n")
	seeAlso(&b, root, all)
	return md2man.Render([]byte(b.String()))
}

// synopsis prints the forms of the command line.
func synopsis(b *strings.Builder, root *cobra.Command) {
	b.WriteString("# SYNOPSIS\n")
	if root.HasSubCommands() {
		for _, cmd := range root.Commands() {
			words := strings.TrimPrefix(cmd.Use, cmd.Name())
			if cmd.HasAvailableLocalFlags() {
				words += " [flags]"
			}
			fmt.Fprintf(b, "**%s %s**%s  \n", root.Name(), cmd.Name(), escape(words))
		}
	} else {
		fmt.Fprintf(b, "**%s**%s\n", root.Name(), escape(strings.TrimPrefix(root.Use, root.Name())))
	}
	b.WriteString("\n")
}

// exitPrefix begins the paragraph of a description that is a section here.
const exitPrefix = "Exit status"

func description(b *strings.Builder, root *cobra.Command) {
	b.WriteString("# DESCRIPTION\n")
	for _, p := range strings.Split(root.Long, "\n\n") {
		if !strings.HasPrefix(p, exitPrefix) {
			b.WriteString(paragraph(p))
		}
	}
}

func exitStatus(b *strings.Builder, root *cobra.Command) {
	for _, p := range strings.Split(root.Long, "\n\n") {
		if rest, ok := strings.CutPrefix(p, exitPrefix); ok {
			rest = strings.TrimLeft(rest, ":, ")
			b.WriteString("# EXIT STATUS\n" + paragraph(strings.ToUpper(rest[:1])+rest[1:]))
		}
	}
}

// paragraph is one of a help text's as Markdown: one that is indented there
// stays as it is.
func paragraph(p string) string {
	if strings.HasPrefix(p, "  ") {
		return "```\n" + p + "\n```\n\n"
	}
	return escape(p) + "\n\n"
}

// command prints what help says of a command.
func command(b *strings.Builder, cmd *cobra.Command) {
	if cmd.Hidden {
		return
	}
	fmt.Fprintf(b, "## %s\n", escape(cmd.Use))
	if len(cmd.Aliases) > 0 {
		fmt.Fprintf(b, "Also: %s.\n\n", strings.Join(cmd.Aliases, ", "))
	}
	text := cmd.Long
	if text == "" {
		text = cmd.Short + "."
	}
	for _, p := range strings.Split(text, "\n\n") {
		b.WriteString(paragraph(p))
	}
	options(b, "", cmd)
}

// options prints a command's own flags, below a heading if there is one.
func options(b *strings.Builder, heading string, cmd *cobra.Command) {
	flags := cmd.NonInheritedFlags()
	if !flags.HasAvailableFlags() {
		return
	}
	if heading != "" {
		fmt.Fprintf(b, "# %s\n", heading)
	}
	flags.VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			option(b, f)
		}
	})
	b.WriteString("\n")
}

func option(b *strings.Builder, f *pflag.Flag) {
	value, usage := pflag.UnquoteUsage(f)
	name := "**--" + f.Name + "**"
	if f.Shorthand != "" {
		name = "**-" + f.Shorthand + "**, " + name
	}
	if value != "" {
		name += " _" + value + "_"
	}
	switch f.DefValue {
	case "", "false", "0", "0s", "[]":
	default:
		usage += " (default: " + strings.Trim(f.DefValue, "[]") + ")"
	}
	fmt.Fprintf(b, "%s\n: %s\n\n", name, escape(usage))
}

func seeAlso(b *strings.Builder, root *cobra.Command, all []*cobra.Command) {
	var others []string
	for _, cmd := range all {
		if cmd != root {
			others = append(others, "**"+cmd.Name()+"**(8)")
		}
	}
	fmt.Fprintf(b, "# SEE ALSO\n%s\n", strings.Join(others, ", "))
}

// escape keeps Markdown's marks in plain text.
func escape(s string) string {
	return strings.NewReplacer("*", `\*`, "_", `\_`, "<", `\<`, "[", `\[`, "|", `\|`).Replace(s)
}

func uncapital(s string) string { return strings.ToLower(s[:1]) + s[1:] }
