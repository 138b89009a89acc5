package shell

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"

	"imeproxy/proxy/config"
	"imeproxy/proxy/observe"
	"imeproxy/proxy/remote"
)

// Deed is what a line did, as far as the log is concerned.
type Deed int

// The deeds.
const (
	// Nothing is no command: a comment, a question, an answer, which may be a password, a line of a certificate, which may be a key that was pasted by
	// mistake. It does not belong into a log.
	Nothing Deed = iota
	Look         // a show command
	Act          // any other command
	Change       // a command of the configuration
)

// guess is the deed of a line that fits no command.
func guess(line string) Deed {
	if f := strings.Fields(strings.ToLower(withoutDo(line))); len(f) > 0 && len(f[0]) > 1 && strings.HasPrefix("show", f[0]) {
		return Look
	}
	return Act
}

// maxAudit bounds a command in the log.
const maxAudit = 256

func auditLine(line string) string {
	line = remote.Masked(config.Masked(observe.Clean(line)))
	if len(line) > maxAudit {
		line = line[:maxAudit] + "..."
	}
	return line
}

// audit tells the log of a command with the number and the severity of an ASA: 111009 at 7 for show commands, of which collectors send many, 111010 at 5
// for what changes the configuration, 111008 at 5 for the others. What failed has not been executed, so that it has no number.
func audit(log *slog.Logger, c Caller, d Deed, line string, exit int) {
	level, attrs := slog.LevelInfo, []slog.Attr{slog.Int("exit", exit)}
	if d == Look {
		level = slog.LevelDebug
	}
	line = auditLine(line)
	text := ""
	switch {
	case d == Nothing:
		return
	case exit != 0:
		text, attrs = "command failed", append([]slog.Attr{slog.String("line", line)}, attrs...)
	case d == Look:
		text = fmt.Sprintf("%%ASA-7-111009: User '%s' executed cmd: %s", c.user(), line)
	default:
		attrs = append(attrs, slog.String("severity", "notice"))
		text = fmt.Sprintf("%%ASA-5-111008: User '%s' executed the '%s' command.", c.user(), line)
		if d == Change {
			text = fmt.Sprintf("%%ASA-5-111010: User '%s', running 'CLI' from IP %s, executed '%s'", c.user(), c.address(), line)
		}
	}
	log.LogAttrs(context.Background(), level, text, attrs...)
}

// user is the caller's name in a message of an ASA.
func (c Caller) user() string {
	if c.Name != "" {
		return observe.Clean(c.Name)
	}
	return fmt.Sprintf("uid %d", c.UID)
}

// address is where the caller sits, 0.0.0.0 on this machine, as an ASA has it for its console.
func (c Caller) address() string {
	if host, _, err := net.SplitHostPort(c.From); err == nil {
		return host
	}
	return "0.0.0.0"
}
