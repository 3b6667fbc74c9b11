package template

import (
	"errors"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
)

// aptSource is one archive that apt fetches binary packages from, of either
// format of sources.list(5), with one URI.
type aptSource struct {
	URI        string
	Suites     []string
	Components []string
}

// readSources reads sources.list and sources.list.d below etc, usually
// /etc/apt.
func readSources(etc string) ([]aptSource, error) {
	files := []string{filepath.Join(etc, "sources.list")}
	for _, pattern := range []string{"*.list", "*.sources"} {
		more, err := filepath.Glob(filepath.Join(etc, "sources.list.d", pattern))
		if err != nil {
			return nil, err
		}
		files = append(files, more...)
	}
	var all []aptSource
	for _, file := range files {
		text, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if filepath.Ext(file) == ".sources" {
			all = append(all, parseDeb822(string(text))...)
			continue
		}
		all = append(all, parseOneLine(string(text))...)
	}
	return all, nil
}

// parseOneLine parses the one-line format: type, options in brackets, URI,
// suite, components. Lines it cannot use are left out.
func parseOneLine(text string) []aptSource {
	var all []aptSource
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		rest, ok := strings.CutPrefix(strings.Join(strings.Fields(line), " "), "deb ")
		if !ok {
			continue
		}
		if strings.HasPrefix(rest, "[") {
			if _, rest, ok = strings.Cut(rest, "]"); !ok {
				continue
			}
		}
		fields := strings.Fields(rest)
		if len(fields) >= 3 {
			all = append(all, aptSource{URI: fields[0], Suites: fields[1:2], Components: fields[2:]})
		}
	}
	return all
}

// parseDeb822 parses the deb822 format: stanzas of fields, empty lines
// between.
func parseDeb822(text string) []aptSource {
	var all []aptSource
	fields, last := map[string]string{}, ""
	for line := range strings.Lines(text + "\n\n") {
		line = strings.TrimRight(line, " \t\r\n")
		key, value, isField := strings.Cut(line, ":")
		switch {
		case line == "":
			all = append(all, stanza(fields)...)
			fields, last = map[string]string{}, ""
		case line[0] == '#':
		case line[0] == ' ' || line[0] == '\t':
			fields[last] += " " + line
		case isField:
			last = strings.ToLower(key)
			fields[last] = value
		}
	}
	return all
}

func stanza(fields map[string]string) []aptSource {
	switch strings.ToLower(strings.TrimSpace(fields["enabled"])) {
	case "no", "false", "off", "0":
		return nil
	}
	if !slices.Contains(strings.Fields(fields["types"]), "deb") {
		return nil
	}
	var all []aptSource
	for _, uri := range strings.Fields(fields["uris"]) {
		s := aptSource{URI: uri, Suites: strings.Fields(fields["suites"]), Components: strings.Fields(fields["components"])}
		if len(s.Suites) > 0 && len(s.Components) > 0 {
			all = append(all, s)
		}
	}
	return all
}

// archive is where a Debian release comes from.
type archive struct {
	main     string // URI of the archive
	updates  string // the same for the suite CODENAME-updates, "" if the machine uses none
	security string // the same for CODENAME-security
}

// aliases are suite names that stand for whatever release a machine runs.
var aliases = []string{"stable", "testing", "unstable", "sid", "oldstable", "oldoldstable"}

// findArchive picks from a machine's sources where release codename comes
// from. own is the codename of the Debian release that the machine runs, or ""
// if it runs something else: its archive has the other releases too.
func findArchive(sources []aptSource, own, codename string) (archive, bool) {
	releases := []string{codename}
	if own != "" {
		releases = append(append(releases, own), aliases...)
	}
	pick := func(suffix string) string {
		var found []string
		for _, release := range releases {
			found = append(found, urisOf(sources, release+suffix)...)
		}
		sort.SliceStable(found, func(i, j int) bool { return isDebian(found[i]) && !isDebian(found[j]) })
		if len(found) == 0 {
			return ""
		}
		return found[0]
	}
	a := archive{main: pick(""), updates: pick("-updates"), security: pick("-security")}
	return a, a.main != ""
}

// urisOf returns the usable URIs that offer component main of a suite.
func urisOf(sources []aptSource, suite string) []string {
	var uris []string
	for _, s := range sources {
		u, err := url.Parse(s.URI)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" {
			continue
		}
		if slices.Contains(s.Suites, suite) && slices.Contains(s.Components, "main") {
			uris = append(uris, strings.TrimRight(s.URI, "/"))
		}
	}
	return uris
}

// isDebian recognizes Debian's own archives among others that use its
// codenames and components: by convention their last part says so.
func isDebian(uri string) bool {
	last := uri[strings.LastIndex(uri, "/")+1:]
	return last == "debian" || last == "debian-security"
}

// lines returns the archive as a sources.list for a release.
func (a archive) lines(codename string) string {
	var b strings.Builder
	for _, s := range []struct{ uri, suite string }{
		{a.main, codename}, {a.updates, codename + "-updates"}, {a.security, codename + "-security"},
	} {
		if s.uri != "" {
			b.WriteString("deb " + s.uri + " " + s.suite + " main\n")
		}
	}
	return b.String()
}

// codenameOf returns the codename of the Debian release that an os-release(5)
// file describes, or "" for another distribution.
func codenameOf(osRelease string) string {
	fields := map[string]string{}
	for line := range strings.Lines(osRelease) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		fields[key] = strings.Trim(value, `"'`)
	}
	if fields["ID"] != "debian" {
		return ""
	}
	return fields["VERSION_CODENAME"]
}
