package callagent

import (
	"fmt"
	"time"
)

// watchQuality looks at the thresholds of IMEQualityAlert every interval.
func (a *Agent) watchQuality() {
	for pause(a.ctx, a.settings().cfg.Feature.QualityInterval) {
		a.evaluate()
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
		a.raise("IMEQualityAlert", "Error", fmt.Sprintf("%d of %d calls with a route went to the PSTN in the last %v", bad, n, f.QualityInterval.Round(time.Second)))
	case standing > 0 && 100*back > uint64(f.FallbackThreshold)*standing:
		a.raise("IMEQualityAlert", "Error", fmt.Sprintf("%d of %d IME calls fall back or have fallen back", back, standing))
	default:
		a.clear("IMEQualityAlert")
	}
}
