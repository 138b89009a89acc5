package observe

import (
	"sort"
	"sync"
	"time"
)

// Severity says how bad a health problem is.
type Severity string

// The severities, worst first.
const (
	Critical Severity = "critical" // calls fail now
	Major    Severity = "major"    // part of the service is missing
	Warning  Severity = "warning"  // will fail unless something is done
)

var severityRank = map[Severity]int{Critical: 0, Major: 1, Warning: 2}

// Problem is one thing that is wrong now: data, not a log line, so that every surface shows the same list.
type Problem struct {
	Code     string    `json:"code"`             // stable, snake case: "call_agent_unreachable"
	Object   string    `json:"object,omitempty"` // what it concerns: a trustpoint, an address
	Severity Severity  `json:"severity"`
	Since    time.Time `json:"since"`
	Impact   string    `json:"impact"`     // what does not work because of it
	WhatToDo string    `json:"what_to_do"` // what the operator can do
}

// maxProblems bounds the list: objects of problems may come from the network (a peer's name).
const maxProblems = 256

// Health is the list of present problems. The zero value is ready; safe for concurrent use.
type Health struct {
	mu       sync.Mutex // guards everything below
	problems map[[2]string]Problem
	dropped  uint64
}

// Raise puts a problem on the list. The same code and object raised again keep their first Since; the rest is replaced. At 256 problems a
// new one is not listed but counted.
func (h *Health) Raise(p Problem) {
	h.mu.Lock()
	defer h.mu.Unlock()
	k := [2]string{p.Code, p.Object}
	if old, ok := h.problems[k]; ok {
		p.Since = old.Since
	} else if len(h.problems) >= maxProblems {
		h.dropped++
		return
	}
	if h.problems == nil {
		h.problems = make(map[[2]string]Problem)
	}
	h.problems[k] = p
}

// Clear takes a problem off the list; one that is not listed is no error.
func (h *Health) Clear(code, object string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.problems, [2]string{code, object})
}

// List gives the present problems, worst first, then oldest first.
func (h *Health) List() HealthList {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := HealthList{Problems: make([]Problem, 0, len(h.problems)), NotListed: h.dropped}
	for _, p := range h.problems {
		l.Problems = append(l.Problems, p)
	}
	sort.Slice(l.Problems, func(i, j int) bool {
		a, b := l.Problems[i], l.Problems[j]
		if ra, rb := severityRank[a.Severity], severityRank[b.Severity]; ra != rb {
			return ra < rb
		}
		if !a.Since.Equal(b.Since) {
			return a.Since.Before(b.Since)
		}
		if a.Code != b.Code {
			return a.Code < b.Code
		}
		return a.Object < b.Object
	})
	return l
}

// HealthList is the snapshot behind `show health`.
type HealthList struct {
	Problems  List[Problem] `json:"problems"`
	NotListed uint64        `json:"not_listed"` // problems that found the list full, since the start
}
