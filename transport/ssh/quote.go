package ssh

import (
	"regexp"
	"strings"

	"github.com/vzkit/vzkit/internal/fault"
)

var plainWord = regexp.MustCompile(`^[A-Za-z0-9_@%+=:,./-]+$`)

// quote joins argv into one command line that a POSIX shell splits into argv
// again: sshd hands the line to the login shell.
func quote(argv []string) (string, error) {
	if len(argv) == 0 || argv[0] == "" {
		return "", fault.New(fault.Usage, "remote command is empty")
	}
	words := make([]string, len(argv))
	for i, arg := range argv {
		switch {
		case strings.ContainsRune(arg, 0):
			return "", fault.New(fault.Usage, "remote argument %q contains NUL", arg)
		case plainWord.MatchString(arg) && (i > 0 || !strings.Contains(arg, "=")):
			words[i] = arg
		default:
			words[i] = "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
		}
	}
	return strings.Join(words, " "), nil
}
