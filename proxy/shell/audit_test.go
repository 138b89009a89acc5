package shell

import (
	"context"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"
)

// What each line leaves in the log, with the numbers of an ASA. Show commands are for a log of level debug alone.
func TestAudit(t *testing.T) {
	const user = "User 'admin'"
	for name, c := range map[string]struct {
		lines []string
		want  []string // of the log, level and message
	}{
		"show":         {[]string{"show clock", "sh ver"}, []string{"DEBUG %ASA-7-111009: " + user + " executed cmd: show clock", "DEBUG %ASA-7-111009: " + user + " executed cmd: sh ver"}},
		"act":          {[]string{"clear conn", "terminal pager 0"}, []string{"INFO %ASA-5-111008: " + user + " executed the 'clear conn' command.", "INFO %ASA-5-111008: " + user + " executed the 'terminal pager 0' command."}},
		"mistyped":     {[]string{"show foo", "frobnicate"}, []string{"DEBUG command failed line=show foo", "INFO command failed line=frobnicate"}},
		"no command":   {[]string{"", "! remark", "show ?"}, nil},
		"expression":   {[]string{"show version | include upp?"}, []string{"DEBUG %ASA-7-111009: " + user + " executed cmd: show version | include upp?"}},
		"answers":      {[]string{"uc-ime wizard", "inline", "quit"}, []string{"INFO %ASA-5-111008: " + user + " executed the 'uc-ime wizard' command."}},
		"control keys": {[]string{"clear\tconn"}, []string{"INFO %ASA-5-111008: " + user + " executed the 'clear?conn' command."}},
		"configuration": {
			[]string{"configure terminal", "hostname other", "do show clock", "show clock", "hostname ?", "enable password Battery_Staple_9", "end"},
			[]string{
				"INFO %ASA-5-111008: " + user + " executed the 'configure terminal' command.",
				"INFO %ASA-5-111010: " + user + ", running 'CLI' from IP 192.0.2.7, executed 'hostname other'",
				"DEBUG %ASA-7-111009: " + user + " executed cmd: do show clock",
				"DEBUG %ASA-7-111009: " + user + " executed cmd: show clock",
				"INFO %ASA-5-111010: " + user + ", running 'CLI' from IP 192.0.2.7, executed 'enable password *****'",
				"INFO %ASA-5-111010: " + user + ", running 'CLI' from IP 192.0.2.7, executed 'end'",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := new(audited)
			l := NewLocal(newExecutor(&clearable{}, newKeeper(t), time.Now), Caller{Name: "admin", From: "192.0.2.7:40000"}, slog.New(h))
			defer l.Close()
			for _, line := range c.lines {
				if _, err := l.Run(context.Background(), line, io.Discard); err != nil {
					t.Fatal(err)
				}
			}
			if got, want := strings.Join(h.lines, "\n"), strings.Join(c.want, "\n"); got != want {
				t.Errorf("the log has\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// Syslog servers get the severity that the number of the message says, and who sits at the control socket is named by his number.
func TestAuditSeverity(t *testing.T) {
	h := new(audited)
	audit(slog.New(h), Caller{UID: 1000}, Change, "hostname x", 0)
	audit(slog.New(h), Caller{Name: "x", From: atConsole}, Act, "clear conn", 0)
	audit(slog.New(h), Caller{Name: "x"}, Look, "show conn", 0)
	want := "INFO %ASA-5-111010: User 'uid 1000', running 'CLI' from IP 0.0.0.0, executed 'hostname x'\nINFO %ASA-5-111008: User 'x' executed the 'clear conn' command.\nDEBUG %ASA-7-111009: User 'x' executed cmd: show conn"
	if got := strings.Join(h.lines, "\n"); got != want || h.severities != "notice,notice,," {
		t.Errorf("%s\nseverities %s", got, h.severities)
	}
}

// audited is a log that keeps level, message and the line of what failed.
type audited struct {
	lines      []string
	severities string
}

func (h *audited) Enabled(context.Context, slog.Level) bool { return true }
func (h *audited) WithAttrs([]slog.Attr) slog.Handler       { return h }
func (h *audited) WithGroup(string) slog.Handler            { return h }

func (h *audited) Handle(_ context.Context, r slog.Record) error {
	line, severity := r.Level.String()+" "+r.Message, ""
	r.Attrs(func(a slog.Attr) bool {
		switch a.Key {
		case "line":
			line += " line=" + a.Value.String()
		case "severity":
			severity = a.Value.String()
		}
		return true
	})
	h.lines, h.severities = append(h.lines, line), h.severities+severity+","
	return nil
}
