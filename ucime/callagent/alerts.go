package callagent

import (
	"fmt"
	"time"

	"imeproxy/ucime/callagent/uplink"
)

// Alert is a standing or past alert.
type Alert struct {
	Name     string    `json:"name"`
	Severity string    `json:"severity"`
	Active   bool      `json:"active"`
	Since    time.Time `json:"since"`
	Count    uint64    `json:"count"`
	Detail   string    `json:"detail"`
	told     time.Time
}

// kinds are the alerts of the guide's tables 50 to 58 with their default severity and how often one that stands is told again at most; 0 is
// each time that its condition is found.
var kinds = map[string]struct {
	severity string
	every    time.Duration
}{
	"IMEQualityAlert":                 {"Error", 0},
	"InsufficientFallbackIdentifiers": {"Error", time.Minute},
	uplink.AlertCacheInactive:         {"Error", 0},
	uplink.AlertOverQuota:             {"Alert", 0},
	uplink.AlertStatus:                {"Critical", time.Hour},
	uplink.AlertCredentials:           {"Alert", 0},
	uplink.AlertTCP:                   {"Critical", 0},
	uplink.AlertTLS:                   {"Alert", 0},
}

// linkAlert takes what the link to the peer servers finds.
func (a *Agent) linkAlert(name, detail string) {
	if detail == "" {
		a.clear(name)
		return
	}
	a.raise(name, detail)
}

// checkService raises IMEServiceStatus for a service that has servers and is not activated, whose state is unknown (guide table 55).
func (a *Agent) checkService() {
	if c := a.settings().cfg; c.Service.Primary != "" && !c.Service.Activated {
		a.raise(uplink.AlertStatus, "unknown: service "+c.Service.Name+" is not activated")
	}
}

// raise sets an alert; it is logged when it becomes active, and again as often as its kind says.
func (a *Agent) raise(name, detail string) {
	kind, now := kinds[name], a.now()
	a.mu.Lock()
	al := a.alerts[name]
	if al == nil {
		al = &Alert{Name: name, Severity: kind.severity}
		a.alerts[name] = al
	}
	tell := !al.Active || now.Sub(al.told) >= kind.every
	if !al.Active {
		al.Active, al.Since = true, now
	}
	if tell {
		al.told = now
	}
	al.Count++
	al.Detail = detail
	a.mu.Unlock()
	if tell {
		a.log.Error("alert", "name", name, "severity", kind.severity, "detail", detail)
	}
}

// clear ends an alert.
func (a *Agent) clear(name string) {
	a.mu.Lock()
	al := a.alerts[name]
	was := al != nil && al.Active
	if was {
		al.Active, al.Since = false, a.now()
	}
	a.mu.Unlock()
	if was {
		a.log.Info("alert ends", "name", name)
	}
}

// watchQuality looks at the thresholds of IMEQualityAlert every interval.
func (a *Agent) watchQuality() {
	for pause(a.ctx, a.settings().cfg.Feature.QualityInterval) {
		a.evaluate()
		a.checkService()
	}
}

// evaluate raises or ends IMEQualityAlert (guide lines 3755-3820): more than so many percent of the calls that were begun since
// the last look went to the PSTN, or of the IME calls that stand have fallen back.
func (a *Agent) evaluate() {
	f := a.settings().cfg.Feature
	attempted, failed := a.counters.CallsAttempted.Load(), a.counters.IMESetupsFailed.Load()
	a.mu.Lock()
	n, bad := attempted-a.quality.attempted, failed-a.quality.failed
	a.quality = quality{attempted, failed}
	all := make([]*call, 0, len(a.calls))
	for c := range a.calls {
		all = append(all, c)
	}
	a.mu.Unlock()
	var standing, back uint64
	for _, c := range all {
		c.mu.Lock()
		if !c.answered.IsZero() && (c.kind == kindIME || c.fb.moved && c.pbx != nil) {
			standing++
			if c.fb.moved || c.fb.running {
				back++
			}
		}
		c.mu.Unlock()
	}
	switch {
	case n > 0 && 100*bad > uint64(f.FailedCallThreshold)*n:
		a.raise("IMEQualityAlert", fmt.Sprintf("%d of %d calls with a route went to the PSTN in the last %v", bad, n, f.QualityInterval.Round(time.Second)))
	case standing > 0 && 100*back > uint64(f.FallbackThreshold)*standing:
		a.raise("IMEQualityAlert", fmt.Sprintf("%d of %d IME calls fall back or have fallen back", back, standing))
	default:
		a.clear("IMEQualityAlert")
	}
}
