package criu

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
)

var (
	logError = regexp.MustCompile(`^\([0-9.]+\)\s+(?:(?:pie: )?(\d+): )?Error \([^)]*\): (.*)$`)
	logTask  = regexp.MustCompile(`Dumping task \(pid: (\d+) comm: (.*)\)`)
)

// maxReasons bounds how many of CRIU's error lines Explain repeats.
const maxReasons = 2

// Explain reads CRIU's log at path and says what it stumbled over and, for a
// dump, in which process: `socket: …: process 4711 "redis-server"`. The first
// errors are the cause, later ones follow from them. It returns "" if the log
// has none or cannot be read.
func Explain(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	return explain(f)
}

func explain(r io.Reader) string {
	var task string
	var reasons []string
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 64<<10), 1<<20)
	for lines.Scan() && len(reasons) < maxReasons {
		line := lines.Text()
		if m := logTask.FindStringSubmatch(line); m != nil {
			task = fmt.Sprintf("process %s %q", m[1], m[2])
		} else if m := logError.FindStringSubmatch(line); m != nil && !harmless(m[2]) {
			reasons = append(reasons, strings.TrimSpace(m[2]))
		}
	}
	if len(reasons) == 0 {
		return ""
	}
	text := strings.Join(reasons, "; ")
	if task != "" {
		text += " (" + task + ")"
	}
	return text
}

// harmless tells errors that CRIU logs and then goes on from.
func harmless(text string) bool {
	return strings.Contains(text, "Can't setup RLIMIT_NOFILE for self") ||
		strings.Contains(text, "address already assigned")
}
