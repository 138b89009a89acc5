package callagent

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"imeproxy/ucime/callagent/uplink"
	"imeproxy/ucime/learn"
)

// Request is what a client of the control socket sends, one a connection, as a line of JSON.
type Request struct {
	Args []string `json:"args"`
	JSON bool     `json:"json"`
}

// Response is the answer.
type Response struct {
	Output string `json:"output"`
	Error  string `json:"error,omitempty"`
}

const (
	controlLimit   = 64 << 10
	controlTime    = 10 * time.Second
	controlClients = 16
)

// ServeControl answers on the control socket until ctx ends. Only the socket's owner may connect.
func (a *Agent) ServeControl(ctx context.Context, ready chan<- error) {
	path := a.settings().cfg.Control
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		c.Close()
		ready <- fmt.Errorf("control socket %s: another call agent serves it", path)
		return
	}
	_ = os.Remove(path) // left by one that is gone
	l, err := net.Listen("unix", path)
	if err == nil {
		err = os.Chmod(path, 0o600)
	}
	ready <- err
	if err != nil {
		return
	}
	defer context.AfterFunc(ctx, func() { l.Close() })()
	places := make(chan struct{}, controlClients)
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		places <- struct{}{}
		wg.Go(func() {
			defer func() { c.Close(); <-places }()
			_ = c.SetDeadline(time.Now().Add(controlTime))
			var r Request
			line, err := bufio.NewReader(io.LimitReader(c, controlLimit)).ReadBytes('\n')
			if err == nil {
				err = json.Unmarshal(line, &r)
			}
			var out string
			if err == nil {
				out, err = a.Command(r.Args, r.JSON)
			}
			answer := Response{Output: out}
			if err != nil {
				answer.Error = err.Error()
			}
			_ = json.NewEncoder(c).Encode(answer) // a client that is gone needs none
		})
	}
}

// Ask sends a command to the call agent of a control socket.
func Ask(path string, r Request) (string, error) {
	c, err := net.DialTimeout("unix", path, 2*time.Second)
	if err != nil {
		return "", fmt.Errorf("no call agent answers: %w", err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(controlTime))
	var answer Response
	if err = json.NewEncoder(c).Encode(r); err == nil {
		err = json.NewDecoder(c).Decode(&answer)
	}
	if err == nil && answer.Error != "" {
		err = errors.New(answer.Error)
	}
	return answer.Output, err
}

// errUsage lists the commands.
var errUsage = errors.New("want show counters|calls|alerts|service|servers|vcrs, routes list, routes add NUMBER DOMAIN TICKET URI..., or routes enable|disable|expire|delete NUMBER")

// Command does a command of the control socket.
func (a *Agent) Command(args []string, asJSON bool) (string, error) {
	if len(args) < 2 {
		return "", errUsage
	}
	word := args[0] + " " + args[1]
	rest := args[2:]
	switch {
	case word == "show counters" && len(rest) == 0:
		return a.table(a.Samples(), asJSON, func(w io.Writer) {
			for _, s := range a.Samples() {
				fmt.Fprintf(w, "%s\t%d\n", s.Name, s.Value)
			}
		})
	case word == "show calls" && len(rest) == 0:
		return a.showCalls(asJSON)
	case word == "show alerts" && len(rest) == 0:
		return a.showAlerts(asJSON)
	case word == "show service" && len(rest) == 0:
		return a.showService(asJSON)
	case word == "show servers" && len(rest) == 0:
		return a.showServers(asJSON)
	case word == "show vcrs" && len(rest) == 0:
		return a.showVCRs(asJSON)
	case word == "routes list" && len(rest) == 0:
		return a.showRoutes(asJSON)
	case word == "routes add" && len(rest) >= 4:
		return "", a.Learn(learn.Route{Number: learn.Number(rest[0]), Domain: rest[1], Ticket: rest[2], URIs: rest[3:]})
	case args[0] == "routes" && len(rest) == 1:
		n := learn.Number(rest[0])
		switch args[1] {
		case "enable", "disable":
			return "", a.routes.Enable(n, args[1] == "enable")
		case "expire":
			return "", a.routes.Expire(n)
		case "delete":
			return "", a.routes.Forget(n)
		}
	}
	return "", errUsage
}

// table is a value as JSON, or what print makes of it in columns.
func (a *Agent) table(v any, asJSON bool, print func(io.Writer)) (string, error) {
	if asJSON {
		text, err := json.MarshalIndent(v, "", "  ")
		return string(text) + "\n", err
	}
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	print(w)
	err := w.Flush() // before the text is looked at
	return b.String(), err
}

// CallView is a call as it is shown.
type CallView struct {
	Way      string    `json:"way"` // "ime" or "pstn"
	Role     string    `json:"role"`
	From     string    `json:"from"`
	To       string    `json:"to"`
	State    string    `json:"state"` // "setup", "answered", "fallback" (under way), "fallen-back"
	Begun    time.Time `json:"begun"`
	CallID   string    `json:"call_id"` // of the PBX's leg
	Fallback string    `json:"fallback_number,omitempty"`
}

func (a *Agent) showCalls(asJSON bool) (string, error) {
	a.mu.Lock()
	all := make([]*call, 0, len(a.calls))
	for c := range a.calls {
		all = append(all, c)
	}
	a.mu.Unlock()
	views := make([]CallView, 0, len(all))
	for _, c := range all {
		views = append(views, c.view())
	}
	slices.SortFunc(views, func(x, y CallView) int { return cmp.Or(x.Begun.Compare(y.Begun), cmp.Compare(x.CallID, y.CallID)) })
	return a.table(views, asJSON, func(w io.Writer) {
		fmt.Fprintln(w, "WAY\tROLE\tFROM\tTO\tSTATE\tBEGUN")
		for _, v := range views {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", v.Way, v.Role, v.From, v.To, v.State, v.Begun.UTC().Format(time.RFC3339))
		}
	})
}

func (c *call) view() CallView {
	c.mu.Lock()
	defer c.mu.Unlock()
	v := CallView{Way: string(c.kind), Role: "originating", From: string(c.from), To: string(c.to), State: "answered", Begun: c.begun, Fallback: c.fb.number}
	if c.role == learn.Terminating {
		v.Role = "terminating"
	}
	if c.fb.profile != nil {
		v.Fallback = c.fb.profile.AdvertisedNumber
	}
	switch {
	case c.answered.IsZero():
		v.State = "setup"
	case c.fb.running:
		v.State = "fallback"
	case c.fb.moved:
		v.State = "fallen-back"
	}
	if c.pbx != nil {
		v.CallID = c.pbx.CallID
	}
	return v
}

func (a *Agent) showAlerts(asJSON bool) (string, error) {
	a.mu.Lock()
	all := make([]Alert, 0, len(a.alerts))
	for _, al := range a.alerts {
		all = append(all, *al)
	}
	a.mu.Unlock()
	slices.SortFunc(all, func(x, y Alert) int { return cmp.Compare(x.Name, y.Name) })
	return a.table(all, asJSON, func(w io.Writer) {
		for _, al := range all {
			state := "ended"
			if al.Active {
				state = "active"
			}
			fmt.Fprintf(w, "%s\t%s\t%s\tsince %s\t%d times\t%s\n", al.Name, al.Severity, state, al.Since.UTC().Format(time.RFC3339), al.Count, al.Detail)
		}
	})
}

func (a *Agent) showService(asJSON bool) (string, error) {
	s := a.settings().cfg.Service
	return a.table(s, asJSON, func(w io.Writer) {
		fmt.Fprintf(w, "Service\t%s\nDomain\t%s\nActivated\t%v\nTrust group\t%s\nExclusion group\t%s\nFirewall\t%s\nEnrolled groups\t%s\n",
			s.Name, s.Domain, s.Activated, cmp.Or(s.TrustGroup, "none"), cmp.Or(s.ExclusionGroup, "none"), cmp.Or(s.Firewall, "none, the proxy is in line"), strings.Join(s.EnrolledGroups, ", "))
		fmt.Fprintf(w, "VServiceId\t%s\nPrimary server\t%s\nSecondary server\t%s\n", uplink.IDOf(s), cmp.Or(s.Primary, "none"), cmp.Or(s.Secondary, "none"))
		for _, e := range s.External {
			fmt.Fprintf(w, "External address\t%s\n", net.JoinHostPort(e.Host, strconv.Itoa(e.Port)))
		}
	})
}

// showServers is the client's side of the guide's `show ime vapstatus summary`.
func (a *Agent) showServers(asJSON bool) (string, error) {
	all := a.link.Status()
	return a.table(all, asJSON, func(w io.Writer) {
		for _, s := range all {
			state := "not registered"
			if s.Registered {
				state = fmt.Sprintf("registered since %s, client handle %d", s.Since.UTC().Format(time.RFC3339), s.Handle)
			}
			fmt.Fprintf(w, "%s server\t%s\nAddress\t%s\nSecurity mode\t%s\nApplication user\t%s\nState\t%s\nPackets sent, received\t%d, %d\n",
				s.Role, s.Name, s.Address, s.Mode, s.User, state, s.Sent, s.Received)
			fmt.Fprintf(w, "VServiceId\t%s\nService published\t%v\nNumbers published\t%d, all of them %v\n", s.Service, s.Published, s.Numbers, s.Complete)
			if s.Quota != nil {
				fmt.Fprintf(w, "Quota\t%d of %d numbers\n", s.Quota.Current, s.Quota.Target)
			}
			fmt.Fprintf(w, "Upload requests\t%d\nRoutes received\t%d\n", s.Requests, s.Routes)
			if why := cmp.Or(s.Refusal, s.LastError); why != "" {
				fmt.Fprintf(w, "Why not\t%s\n", why)
			}
		}
	})
}

func (a *Agent) showVCRs(asJSON bool) (string, error) {
	all, _ := a.records.Take(1000)
	return a.table(all, asJSON, func(w io.Writer) {
		fmt.Fprintln(w, "ROLE\tCALLED\tCALLER\tSTART\tSECONDS")
		for _, v := range all {
			role := "originating"
			if v.Role == learn.Terminating {
				role = "terminating"
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%.3f\n", role, v.Called, cmp.Or(string(v.Caller), "unknown"), v.Start.UTC().Format(time.RFC3339), v.Stop.Sub(v.Start).Seconds())
		}
	})
}

func (a *Agent) showRoutes(asJSON bool) (string, error) {
	all := a.routes.List()
	return a.table(all, asJSON, func(w io.Writer) {
		fmt.Fprintln(w, "E.164\tDOMAIN\tSIGNALING\tLEARNED-ON\tEXPIRES-ON\tADMIN ENABLED")
		for _, r := range all {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%v\n", r.Number, r.Domain, strings.Join(r.URIs, " "), r.Learned.UTC().Format(time.DateOnly), r.Expires.UTC().Format(time.DateOnly), r.Enabled)
		}
	})
}

// WriteMetrics writes all figures in the Prometheus text format.
func (a *Agent) WriteMetrics(w io.Writer) error {
	var b strings.Builder
	for _, s := range a.Samples() {
		name, kind := "imeproxy_callagent_"+s.key, "gauge"
		if !s.Gauge {
			name, kind = name+"_total", "counter"
		}
		fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %s %s\n%s %d\n", name, s.help, name, kind, name, s.Value)
	}
	a.mu.Lock()
	b.WriteString("# HELP imeproxy_callagent_alert_active Whether an alert stands.\n# TYPE imeproxy_callagent_alert_active gauge\n")
	for _, name := range slices.Sorted(maps.Keys(kinds)) {
		v := 0
		if al := a.alerts[name]; al != nil && al.Active {
			v = 1
		}
		fmt.Fprintf(&b, "imeproxy_callagent_alert_active{name=%q} %d\n", name, v)
	}
	a.mu.Unlock()
	_, err := io.WriteString(w, b.String())
	return err
}

// ServeMetrics serves /metrics until ctx ends, where the configuration has an address for it.
func (a *Agent) ServeMetrics(ctx context.Context) error {
	at := a.settings().cfg.Metrics
	if at == "" {
		return nil
	}
	l, err := net.Listen("tcp", at)
	if err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		_ = a.WriteMetrics(w)
	})
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, WriteTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 8 << 10}
	a.wg.Go(func() { _ = srv.Serve(l) })
	context.AfterFunc(ctx, func() { srv.Close() })
	return nil
}
