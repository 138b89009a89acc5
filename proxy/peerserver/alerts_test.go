package peerserver

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"imeproxy/ucime/enroll"
	"imeproxy/ucime/ring"
	"imeproxy/ucime/vap"
)

var alertNoon = time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)

// good is a server of which nothing is to be told.
func good() Status {
	return Status{
		Running: true, Enrollment: enroll.MemberStatus{Licensed: true, Enrolled: true, NotAfter: alertNoon.Add(300 * 24 * time.Hour)},
		Ring: ring.Status{Health: ring.Green},
	}
}

// Each condition is told at once with the guide's severity, again after the guide's time and not before, and never when it does not hold.
func TestAlertConditions(t *testing.T) {
	for name, c := range map[string]struct {
		bad      func(*Status)
		severity Severity
		every    time.Duration
		text     string
	}{
		"BannedFromNetwork":                      {func(s *Status) { s.Ring.Banned = true }, SeverityAlert, time.Minute, "banned"},
		"IMEDistributedCacheCertificateExpiring": {func(s *Status) { s.Enrollment.NotAfter = alertNoon.Add(13*24*time.Hour + time.Hour) }, SeverityWarning, 24 * time.Hour, "13 days"},
		"IMEDistributedCacheFailure":             {func(s *Status) { s.Ring.Health, s.Ring.Reason = ring.Red, "alone" }, SeverityAlert, time.Hour, "RED: alone"},
		"IMESdlLinkOutOfService":                 {func(s *Status) { s.Failed = "port taken" }, SeverityCritical, time.Minute, "port taken"},
		"InvalidCertificate":                     {func(s *Status) { s.Enrollment.Licensed = false }, SeverityAlert, time.Minute, "no license"},
		"MessageOfTheDay":                        {func(s *Status) { s.Ring.MOTD = "maintenance" }, SeverityNotice, 24 * time.Hour, "maintenance"},
		"SWUpdateRequired":                       {func(s *Status) { s.Ring.Update, s.Ring.Required = true, 7 }, SeverityWarning, time.Hour, "version 7"},
		"ValidationsPendingExceeded":             {func(s *Status) { s.Pending = 101 }, SeverityCritical, time.Hour, "101 calls"},
		"IMEOverQuota":                           {func(s *Status) { s.VAP.Quota = vap.Quota{Current: 12, Target: 10} }, SeverityAlert, time.Minute, "current 12, target 10"},
	} {
		t.Run(name, func(t *testing.T) {
			var told []Alert
			a := newAlerter(func(x Alert) { told = append(told, x) })
			a.look(alertNoon, good())
			if len(told) != 0 {
				t.Fatalf("nothing is wrong: %+v", told)
			}
			bad := good()
			c.bad(&bad)
			for _, at := range []time.Duration{0, time.Second, c.every - time.Second, c.every, c.every + time.Second} {
				a.look(alertNoon.Add(at), bad)
			}
			if len(told) != 2 || told[0].Name != name || told[0].Severity != c.severity || !strings.Contains(told[0].Text, c.text) || !told[0].Time.Equal(alertNoon) {
				t.Fatalf("told %+v", told)
			}
			a.look(alertNoon.Add(c.every+2*time.Second), good())
			a.look(alertNoon.Add(c.every+3*time.Second), bad)
			if len(told) != 3 {
				t.Errorf("it ended and came again: told %d times", len(told))
			}
		})
	}
}

// 100 calls that wait are within what the guide allows, and so are 14 days.
func TestAlertThresholds(t *testing.T) {
	a := newAlerter(func(x Alert) { t.Errorf("told %+v", x) })
	s := good()
	s.Pending, s.Enrollment.NotAfter = 100, alertNoon.Add(14*24*time.Hour)
	a.look(alertNoon, s)
}

// Another message of the day is told at once.
func TestAnotherMessageOfTheDay(t *testing.T) {
	n := 0
	a := newAlerter(func(Alert) { n++ })
	s := good()
	for i, text := range []string{"one", "one", "two"} {
		s.Ring.MOTD = text
		a.look(alertNoon.Add(time.Duration(i)*time.Second), s)
	}
	if n != 2 {
		t.Errorf("told %d times", n)
	}
}

// Wrong passwords and refused publications are told once a minute with their number, and a new start of the server is none.
func TestAlertEvents(t *testing.T) {
	var told []Alert
	a := newAlerter(func(x Alert) { told = append(told, x) })
	s := good()
	for i, wrong := range []uint64{1, 3, 3} {
		s.VAP.FailedAuthentication = wrong
		a.look(alertNoon.Add(time.Duration(i)*time.Second), s)
	}
	a.look(alertNoon.Add(time.Minute), s)
	if len(told) != 2 || told[0].Name != "InvalidCredentials" || told[0].Severity != SeverityError || !strings.HasPrefix(told[0].Text, "1 ") || !strings.HasPrefix(told[1].Text, "2 ") {
		t.Fatalf("told %+v", told)
	}
	told = nil
	s.VAP.FailedAuthentication = 0
	a.look(alertNoon.Add(2*time.Minute), s)
	s.VAP.OverQuota = 1
	a.look(alertNoon.Add(3*time.Minute), s)
	if len(told) != 1 || told[0].Name != "IMEOverQuota" {
		t.Errorf("told %+v", told)
	}
	a.enrolled(alertNoon, alertNoon.Add(time.Hour))
	a.enrollFailed(alertNoon, errors.New("no answer"))
	if told[1].Name != "SuccessfulEnrollment" || told[2].Name != "EnrollFailure" || told[2].Text != "no answer" {
		t.Errorf("told %+v", told[1:])
	}
}

// A webhook gets each alert as JSON; one that does not answer well is told in the log; without a URL nobody gets anything.
func TestWebhook(t *testing.T) {
	got := make(chan Alert, 4)
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var a Alert
		if err := json.Unmarshal(body, &a); err != nil || r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s %s: %v", r.Method, body, err)
		}
		if a.Name == "refused" {
			http.Error(w, "no", http.StatusForbidden)
		}
		got <- a
	}))
	defer receiver.Close()
	var log strings.Builder
	w := NewWebhooks(slog.New(slog.NewTextHandler(&log, nil)))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); w.Run(ctx) }()
	want := Alert{"BannedFromNetwork", SeverityAlert, alertNoon, "text"}
	w.Send("", want)
	w.Send(receiver.URL, Alert{Name: "refused"})
	w.Send(receiver.URL, want)
	if a := <-got; a.Name != "refused" {
		t.Errorf("first %+v", a)
	}
	if a := <-got; a != want {
		t.Errorf("got %+v", a)
	}
	cancel()
	<-done
	if !strings.Contains(log.String(), "alert=refused") || !strings.Contains(log.String(), "403 Forbidden") {
		t.Errorf("log: %s", log.String())
	}
}

// A receiver that hangs costs no memory: what does not fit into the queue is dropped and logged.
func TestWebhookQueueIsBounded(t *testing.T) {
	var log strings.Builder
	w := NewWebhooks(slog.New(slog.NewTextHandler(&log, nil)))
	for range maxQueuedAlerts + 1 {
		w.Send("http://192.0.2.1/", Alert{Name: "a"})
	}
	if n := strings.Count(log.String(), "too many wait"); n != 1 {
		t.Errorf("%d were dropped: %s", n, log.String())
	}
}
