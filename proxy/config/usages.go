package config

import (
	"regexp"
	"slices"
	"strings"
)

// Usage is a command of configuration mode as documents print it.
type Usage struct {
	Mode  string // such as global or uc-ime
	Usage string
	Help  string
}

var (
	argumentRE = regexp.MustCompile(`<([a-z0-9_]+):([A-Z0-9a-z-]+)>`)
	aliasRE    = regexp.MustCompile(`([a-z0-9-]+)=([a-z0-9-]+)`)
)

// label is an argument as syntax lines print it.
func label(name string) string { return strings.ToUpper(strings.ReplaceAll(name, "_", "-")) }

// usage is a pattern without kinds and other spellings.
func usage(pattern string) string {
	text := strings.Replace(pattern, cipherPattern(), "SUITE...", 1)
	text = argumentRE.ReplaceAllStringFunc(text, func(a string) string { return label(argumentRE.FindStringSubmatch(a)[1]) })
	return strings.TrimSpace(aliasRE.ReplaceAllString(text, "$1"))
}

// Usages lists the commands of all modes in the order in which help has them.
func Usages() []Usage {
	var out []Usage
	for _, m := range modes().list() {
		for _, c := range m.all {
			if !c.refused && !slices.Contains([]string{"exit", "quit", "end"}, c.pattern) {
				out = append(out, Usage{m.name, usage(c.pattern), c.help})
			}
		}
	}
	return out
}
