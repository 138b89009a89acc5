package testbed

import (
	"encoding/csv"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"text/template"
	"time"
)

// LoadOptions of a run of short calls from A to B. sipp plays both call
// agents, so the lab must have been started with NoCallAgents.
type LoadOptions struct {
	// Rate is calls per second, Calls how many in all.
	Rate, Calls int
	// Hold is how long a call stands.
	Hold time.Duration
}

// LoadResult is what a run took.
type LoadResult struct {
	Succeeded, Failed int
	// Elapsed is from the first call to the last; Rate the calls per second.
	Elapsed time.Duration
	Rate    float64
	// Edges holds what the programs of the two edges took, by name of the
	// program and side: "imeproxy a", "kamailio b".
	Edges map[string]EdgeUsage
	// MostCalls is the largest number of calls that stood at one time, as
	// sipp counts them.
	MostCalls int
}

// EdgeUsage is what one program took during a run.
type EdgeUsage struct {
	CPU time.Duration
	// Before and Peak are bytes of memory, of several processes the sum.
	Before, Peak int64
}

// The caller of the load: an INVITE with the ticket, a call of the given
// length, a BYE. Message by message as sipp's own uac.
var loadCaller = template.Must(template.New("uac").Parse(`<?xml version="1.0" encoding="ISO-8859-1" ?>
<scenario name="load">
<send retrans="500"><![CDATA[
INVITE sip:{{.Number}}@{{.FarDomain}} SIP/2.0
Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
From: <sip:{{.Caller}}@{{.Domain}}>;tag=[pid]SIPpTag00[call_number]
To: <sip:{{.Number}}@{{.FarDomain}}>
Call-ID: [call_id]
CSeq: 1 INVITE
Contact: <sip:{{.Caller}}@[local_ip]:[local_port];transport=[transport]>
Max-Forwards: 70
{{if .Ticket}}X-Cisco-UC-IME-Ticket: {{.Ticket}}
{{end}}Content-Type: application/sdp
Content-Length: [len]

v=0
o=- 53655765 2353687637 IN IP[local_ip_type] [local_ip]
s=-
c=IN IP[media_ip_type] [media_ip]
t=0 0
m=audio [media_port] RTP/AVP 0
a=rtpmap:0 PCMU/8000
]]></send>
<recv response="100" optional="true"></recv>
<recv response="180" optional="true"></recv>
<recv response="183" optional="true"></recv>
<recv response="200" rrs="true" rtd="true"></recv>
<send><![CDATA[
ACK [next_url] SIP/2.0
Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
[routes]
From: <sip:{{.Caller}}@{{.Domain}}>;tag=[pid]SIPpTag00[call_number]
To: <sip:{{.Number}}@{{.FarDomain}}>[peer_tag_param]
Call-ID: [call_id]
CSeq: 1 ACK
Max-Forwards: 70
Content-Length: 0

]]></send>
<pause/>
<send retrans="500"><![CDATA[
BYE [next_url] SIP/2.0
Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
[routes]
From: <sip:{{.Caller}}@{{.Domain}}>;tag=[pid]SIPpTag00[call_number]
To: <sip:{{.Number}}@{{.FarDomain}}>[peer_tag_param]
Call-ID: [call_id]
CSeq: 2 BYE
Max-Forwards: 70
Content-Length: 0

]]></send>
<recv response="200"></recv>
</scenario>
`))

// The callee, as sipp's own uas but for the Record-Route headers, which that one leaves out: without them no BYE finds
// its way back through edges that record routes.
const loadCallee = `<?xml version="1.0" encoding="ISO-8859-1" ?>
<scenario name="load callee">
<recv request="INVITE" crlf="true"></recv>
<send><![CDATA[
SIP/2.0 180 Ringing
[last_Via:]
[last_From:]
[last_To:];tag=[pid]SIPpTag01[call_number]
[last_Record-Route:]
[last_Call-ID:]
[last_CSeq:]
Contact: <sip:[local_ip]:[local_port];transport=[transport]>
Content-Length: 0

]]></send>
<send retrans="500"><![CDATA[
SIP/2.0 200 OK
[last_Via:]
[last_From:]
[last_To:];tag=[pid]SIPpTag01[call_number]
[last_Record-Route:]
[last_Call-ID:]
[last_CSeq:]
Contact: <sip:[local_ip]:[local_port];transport=[transport]>
Content-Type: application/sdp
Content-Length: [len]

v=0
o=user1 53655765 2353687637 IN IP[local_ip_type] [local_ip]
s=-
c=IN IP[media_ip_type] [media_ip]
t=0 0
m=audio [media_port] RTP/AVP 0
a=rtpmap:0 PCMU/8000
]]></send>
<recv request="ACK" crlf="true"></recv>
<recv request="BYE"></recv>
<send><![CDATA[
SIP/2.0 200 OK
[last_Via:]
[last_From:]
[last_To:]
[last_Call-ID:]
[last_CSeq:]
Content-Length: 0

]]></send>
</scenario>
`

// Load runs calls from A to B through both edges. Failed calls are counted,
// not fatal; a run that does not come to its end is.
func (l *Lab) Load(t T, o LoadOptions) LoadResult {
	t.Helper()
	var ticket string
	if l.A.Proxy != nil || l.B.Proxy != nil {
		ticket = l.ticketFor(t, l.A)
	}
	scenario, stat := filepath.Join(l.Dir, "load.xml"), filepath.Join(l.Dir, "load.csv")
	writeTemplate(t, scenario, loadCaller, map[string]any{
		"Number": l.B.Number, "FarDomain": l.B.Domain, "Caller": l.A.Number, "Domain": l.A.Domain, "Ticket": ticket,
	})
	if err := os.Remove(stat); err != nil && !os.IsNotExist(err) {
		t.Fatalf("%v", err)
	}
	callee := filepath.Join(l.Dir, "callee.xml")
	writeFile(t, callee, loadCallee)
	uas := l.sipp(t, l.B, "sipp-uas", "-sf", callee, "-p", strconv.Itoa(TrunkPort))
	defer uas.Stop(syscall.SIGKILL, time.Second)
	Until(t, 10*time.Second, "sipp listens", func() bool {
		out, err := l.B.UCMHost.Run("ss", "-Hltn", "sport", "=", fmt.Sprintf(":%d", TrunkPort))
		return err == nil && out != "" || !uas.Running()
	})
	before := l.edgeUsage(t)
	begin := time.Now()
	uac := l.sipp(t, l.A, "sipp-uac", l.A.TrunkTarget().String(), "-sf", scenario, "-r", strconv.Itoa(o.Rate), "-m", strconv.Itoa(o.Calls),
		"-d", strconv.FormatInt(o.Hold.Milliseconds(), 10), "-l", "100000", "-recv_timeout", "20000",
		"-trace_stat", "-stf", stat, "-fd", "1")
	peak := make(map[string]int64)
	limit := time.Duration(o.Calls)*time.Second/time.Duration(o.Rate) + o.Hold + time.Minute
	ended := eventually(limit, func() bool {
		if time.Since(begin).Milliseconds()%200 < 2*pollEvery.Milliseconds() {
			for name, u := range l.edgeUsage(t) {
				peak[name] = max(peak[name], u.Peak)
			}
		}
		return !uac.Running()
	})
	if !ended {
		t.Fatalf("sipp has not ended after %v:\n%s", limit, tail(uac.Log(), 3000))
	}
	r := LoadResult{Elapsed: time.Since(begin), Edges: make(map[string]EdgeUsage)}
	for name, u := range l.edgeUsage(t) {
		b := before[name]
		r.Edges[name] = EdgeUsage{CPU: u.CPU - b.CPU, Before: b.Peak, Peak: max(peak[name], u.Peak)}
	}
	r.readStatistics(t, stat, uac)
	r.Rate = float64(r.Succeeded+r.Failed) / (r.Elapsed - o.Hold).Seconds()
	return r
}

// sipp starts sipp in the place of an enterprise's call agent.
func (l *Lab) sipp(t T, e *Enterprise, name string, args ...string) *Process {
	t.Helper()
	ip := e.UCMIP.String()
	args = append([]string{"sipp", "-t", "t1", "-i", ip, "-mi", ip, "-nostdin", "-skip_rlimit"}, args...)
	p, err := e.UCMHost.Start(name, StartOptions{Dir: l.Dir, Env: []string{"TERM=dumb"}}, args...)
	if err != nil {
		t.Fatalf("%v", err)
	}
	l.track(p)
	l.onClose(p.Kill)
	return p
}

// readStatistics reads the last line of sipp's CSV.
func (r *LoadResult) readStatistics(t T, file string, uac *Process) {
	t.Helper()
	reader := csv.NewReader(strings.NewReader(readAll(file)))
	reader.Comma, reader.FieldsPerRecord = ';', -1
	rows, err := reader.ReadAll()
	if err != nil || len(rows) < 2 {
		t.Fatalf("sipp's statistics: %v, %d lines; %v\n%s", err, len(rows), uac.Wait(0), tail(uac.Log(), 3000))
	}
	column := func(row []string, name string) int {
		for i, head := range rows[0] {
			if head == name && i < len(row) {
				n, err := strconv.Atoi(row[i])
				if err != nil {
					t.Fatalf("sipp's statistics: %v", err)
				}
				return n
			}
		}
		t.Fatalf("sipp's statistics have no column %s", name)
		return 0
	}
	last := rows[len(rows)-1]
	r.Succeeded, r.Failed = column(last, "SuccessfulCall(C)"), column(last, "FailedCall(C)")
	for _, row := range rows[1:] {
		r.MostCalls = max(r.MostCalls, column(row, "CurrentCall"))
	}
}

// edgeUsage sums what the programs at the edges have taken so far.
func (l *Lab) edgeUsage(t T) map[string]EdgeUsage {
	t.Helper()
	out := make(map[string]EdgeUsage)
	for _, e := range l.Enterprises() {
		pids, err := run(exec.CommandContext, "ip", "netns", "pids", e.EdgeHost.NS)
		if err != nil {
			t.Fatalf("%v", err)
		}
		for _, p := range nonEmptyLines(pids) {
			pid, err := strconv.Atoi(p)
			if err != nil {
				t.Fatalf("%v", err)
			}
			u, err := usageOf(pid)
			if err != nil {
				continue // it has just ended
			}
			name := strings.TrimSpace(readAll(fmt.Sprintf("/proc/%d/comm", pid))) + " " + e.Letter
			sum := out[name]
			sum.CPU += u.CPU
			sum.Peak += u.Memory
			out[name] = sum
		}
	}
	return out
}
