package testbed

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"text/template"
	"time"
)

// PSTN is the telephone network between the enterprises: Kamailio as the switch, rtpengine for the media. It has an address in
// either inside network, as a carrier's gateway has, and lets every number through unchanged.
type PSTN struct {
	lab       *Lab
	file      string
	kam, rtpe *Process
}

// PBX is an enterprise's PBX that has no IME client: Kamailio with the phone on one side and the call agent on the other.
type PBX struct {
	e    *Enterprise
	lab  *Lab
	file string
	kam  *Process
}

// IMEAgent is an enterprise's `imeproxy callagent`, driven by its command line alone. It stands where the call agent of the
// proxy's configuration is: ports 5060 for the PBX, 5080 for the PSTN, TrunkPort for the proxy.
type IMEAgent struct {
	// ConfigFile, StateDir and Control are what it is started with.
	ConfigFile, StateDir, Control string

	e    *Enterprise
	lab  *Lab
	proc *Process
}

// pstnPort is where call agents talk with the PSTN.
const pstnPort = 5080

// neverRings is a number at which a PBX answers 100 and nothing more.
const neverRings = "999"

// kamailioHead is what the small switches of the lab have in common.
const kamailioHead = `#!KAMAILIO
debug=1
log_stderror=yes
fork=yes
children=2
tcp_children=3
auto_aliases=no
dns=no
rev_dns=no
tcp_connection_lifetime=3605
loadmodule "tm.so"
loadmodule "tmx.so"
loadmodule "sl.so"
loadmodule "rr.so"
loadmodule "pv.so"
loadmodule "maxfwd.so"
loadmodule "textops.so"
loadmodule "siputils.so"
loadmodule "xlog.so"
modparam("rr", "enable_double_rr", 1)
modparam("tm", "fr_timer", 10000)
modparam("tm", "fr_inv_timer", 120000)
`

var pstnConfig = template.Must(template.New("pstn").Parse(kamailioHead + `
{{range .}}listen=udp:{{.PSTNIP}}:5060
{{end}}loadmodule "rtpengine.so"
modparam("rtpengine", "rtpengine_sock", "udp:127.0.0.1:2223")

request_route {
  if (!mf_process_maxfwd_header("10")) { sl_send_reply("483", "Too Many Hops"); exit; }
  xlog("L_NOTICE", "$rm $ru from $si call $ci\n");
  if (has_totag()) {
    if (!loose_route()) {
      if (is_method("ACK") && t_check_trans()) t_relay();
      exit;
    }
    if (is_method("BYE")) rtpengine_delete();
    if (is_method("INVITE")) route(MEDIA);
    t_relay();
    exit;
  }
  if (is_method("CANCEL")) { if (t_check_trans()) t_relay(); exit; }
  t_check_trans();
  if (is_method("OPTIONS")) { sl_send_reply("200", "OK"); exit; }
  if (!is_method("INVITE")) { sl_send_reply("405", "Method Not Allowed"); exit; }
  record_route();
{{range .}}  if ($rU == "{{.Number}}" || $rU == "{{.FallbackNumber}}") {
    $du = "sip:{{.UCMIP}}:` + fmt.Sprint(pstnPort) + `";
    $fs = "udp:{{.PSTNIP}}:5060";
    route(MEDIA);
    t_relay();
    exit;
  }
{{end}}  sl_send_reply("404", "Not Found");
}
route[MEDIA] {
{{range .}}  if ($si == "{{.UCMIP}}") rtpengine_offer("replace-origin ICE=remove direction={{.Letter}} direction={{.Far.Letter}}");
{{end}}  t_on_reply("ANSWER");
}
onreply_route[ANSWER] {
  if (has_body("application/sdp")) rtpengine_answer("replace-origin");
}
`))

var pbxConfig = template.Must(template.New("pbx").Parse(kamailioHead + `
listen=tcp:{{.PBXIP}}:5060

request_route {
  if (!mf_process_maxfwd_header("10")) { sl_send_reply("483", "Too Many Hops"); exit; }
  xlog("L_NOTICE", "$rm $ru from $si call $ci\n");
  if (has_totag()) {
    if (!loose_route()) {
      if (is_method("ACK") && t_check_trans()) t_relay();
      exit;
    }
    t_relay();
    exit;
  }
  if (is_method("CANCEL")) { if (t_check_trans()) t_relay(); exit; }
  t_check_trans();
  # The phone's preloaded route is this PBX.
  remove_hf("Route");
  if (is_method("OPTIONS|REGISTER")) { sl_send_reply("200", "OK"); exit; }
  # A number whose calls are taken and never ring.
  if ($rU == "` + neverRings + `") { t_newtran(); exit; }
  record_route();
  if ($rU == "{{.Number}}") {
    $ru = "sip:{{.Number}}@{{.PhoneIP}}:5060;transport=tcp";
    t_relay();
    exit;
  }
  # Only a phone may call out: from the trunk this would be toll fraud.
  if ($si == "{{.UCMIP}}") { sl_send_reply("404", "Not Found"); exit; }
  $du = "sip:{{.UCMIP}}:5060;transport=tcp";
  t_relay();
}
`))

var imeAgentConfig = template.Must(template.New("agent").Parse(`state-directory {{.StateDir}}
control {{.Control}}
media {{.E.UCMIP}} ports 40000 40999
pbx kamailio
 listen tcp {{.E.UCMIP}} port 5060
 peer tcp {{.E.PBXIP}} port 5060
pstn-trunk carrier
 listen udp {{.E.UCMIP}} port ` + fmt.Sprint(pstnPort) + `
 peer udp {{.E.PSTNIP}} port 5060
ime-trunk proxy
 listen tcp {{.E.UCMIP}} port ` + fmt.Sprint(TrunkPort) + `
service main
 domain {{.E.Domain}}
 enrolled-group phones
 external-address {{.E.Mapped}} port ` + fmt.Sprint(TrunkPort) + `
 activated
enrolled-group phones
 pattern {{.E.Number}}
 fallback-profile standard
fallback-profile standard
 advertised-number {{.E.FallbackNumber}}
`))

// telephony writes the configurations of the PSTN, the PBXs and the call agents.
func (l *Lab) telephony() {
	l.PSTN = &PSTN{lab: l, file: filepath.Join(l.Dir, "pstn.cfg")}
	writeTemplate(l.T, l.PSTN.file, pstnConfig, l.Enterprises())
	for _, e := range l.Enterprises() {
		e.PBX = &PBX{e: e, lab: l, file: filepath.Join(l.Dir, "pbx-"+e.Letter+".cfg")}
		writeTemplate(l.T, e.PBX.file, pbxConfig, e)
		dir := filepath.Join(l.Dir, "agent-"+e.Letter)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			l.T.Fatalf("%v", err)
		}
		e.Agent = &IMEAgent{
			e: e, lab: l, ConfigFile: filepath.Join(dir, "callagent.cfg"), StateDir: filepath.Join(dir, "state"), Control: filepath.Join(l.socks, "agent-"+e.Letter),
		}
		var text strings.Builder
		if err := imeAgentConfig.Execute(&text, map[string]any{"E": e, "StateDir": e.Agent.StateDir, "Control": e.Agent.Control}); err != nil {
			l.T.Fatalf("configuration of the call agent: %v", err)
		}
		config := text.String()
		if e.side.AgentConfig != nil {
			config = e.side.AgentConfig(config)
		}
		writeFile(l.T, e.Agent.ConfigFile, config)
	}
}

// JoinPSTN starts the PSTN, and in either enterprise the PBX and `imeproxy callagent`, in the place of the Kamailio call agent that
// may run there. The phones begin anew, behind their PBXs. The lab needs Options.PSTN.
func (l *Lab) JoinPSTN(t T) {
	t.Helper()
	l.PSTN.Start(t)
	for _, e := range l.Enterprises() {
		if e.UCM.proc != nil {
			e.UCM.Kill()
		}
		e.PBX.Start(t)
		e.Agent.Start(t)
		if e.Phone.proc != nil {
			e.Phone.stop()
		}
		e.Phone.account(t, e.PBXIP)
		e.Phone.Start(t)
	}
}

// Start starts the PSTN and returns when it serves.
func (p *PSTN) Start(t T) {
	t.Helper()
	args := []string{}
	for _, e := range p.lab.Enterprises() {
		args = append(args, fmt.Sprintf("--interface=%s/%s", e.Letter, e.PSTNIP))
	}
	p.rtpe = startRTPengine(t, p.lab, p.lab.PSTNHost, "rtpengine-pstn", "", args...)
	p.lab.onClose(func() { p.rtpe.Stop(syscall.SIGTERM, 5*time.Second) })
	p.kam = startKamailio(t, p.lab, p.lab.PSTNHost, "pstn", p.file, "")
	p.lab.onClose(p.kam.Kill)
	awaitListening(t, p.kam, p.lab.PSTNHost, "-Hlun", 5060)
}

// Log is what the switch wrote: a line for each request.
func (p *PSTN) Log() string { return p.kam.Log() }

// Start starts the PBX and returns when it serves.
func (p *PBX) Start(t T) {
	t.Helper()
	p.kam = startKamailio(t, p.lab, p.e.PBXHost, "pbx-"+p.e.Letter, p.file, "")
	p.lab.onClose(p.kam.Kill)
	awaitListening(t, p.kam, p.e.PBXHost, "-Hltn", 5060)
}

// awaitListening returns when a program's port is open in its namespace; kind are the options for ss.
func awaitListening(t T, p *Process, h *Host, kind string, port int) {
	t.Helper()
	Until(t, 20*time.Second, p.Name+" listens", func() bool {
		out, err := h.Run("ss", kind, "sport", "=", fmt.Sprintf(":%d", port))
		return err == nil && strings.Contains(out, fmt.Sprintf(":%d", port)) || !p.Running()
	})
	if !p.Running() {
		t.Fatalf("%s ended at once:\n%s", p.Name, tail(p.Log(), 3000))
	}
}

// Start starts the call agent and returns when it says that it is ready.
func (a *IMEAgent) Start(t T) {
	t.Helper()
	out := filepath.Join(a.lab.Dir, "agent-"+a.e.Letter+".out")
	before := readyLines(out)
	proc, err := a.e.UCMHost.Start("agent-"+a.e.Letter, StartOptions{}, Binary(), "callagent", "--config", a.ConfigFile)
	if err != nil {
		t.Fatalf("%v", err)
	}
	a.proc = proc
	a.lab.track(proc)
	a.lab.onClose(func() { a.Stop(a.lab.T) })
	Until(t, 20*time.Second, "call agent "+a.e.Letter+" is ready", func() bool { return readyLines(out) > before || !proc.Running() })
	if !proc.Running() {
		t.Fatalf("call agent %s ended at once: %v\n%s", a.e.Letter, proc.Wait(0), tail(proc.Log(), 4000))
	}
}

// Stop ends the call agent in order, within 10 s and with exit status 0.
func (a *IMEAgent) Stop(t T) {
	t.Helper()
	if !a.proc.Running() {
		return
	}
	if err := a.proc.Stop(syscall.SIGTERM, 10*time.Second); err != nil {
		t.Errorf("stop call agent %s: %v\n%s", a.e.Letter, err, tail(a.proc.Log(), 3000))
	}
}

// Log is what the call agent wrote.
func (a *IMEAgent) Log() string { return a.proc.Log() }

// Command runs a command of the call agent, for example "routes list".
func (a *IMEAgent) Command(t T, words ...string) string {
	t.Helper()
	return MustImeproxy(t, append([]string{"callagent"}, append(words, "--control", a.Control)...)...)
}

// show decodes what a show command prints as JSON into v.
func (a *IMEAgent) show(t T, what string, v any) {
	t.Helper()
	if out := a.Command(t, "show", what, "--json"); json.Unmarshal([]byte(out), v) != nil {
		t.Fatalf("call agent %s: show %s: no JSON: %s", a.e.Letter, what, tail(out, 500))
	}
}

// AddRoute enters a learned route to the far phone's number, with a ticket that the far enterprise issues.
func (a *IMEAgent) AddRoute(t T) {
	t.Helper()
	far := a.e.far
	a.Command(t, "routes", "add", far.Number, far.Domain, a.lab.ticketFor(t, a.e), fmt.Sprintf("sip:%s:%d", far.Mapped, TrunkPort))
}

// Counters are those of `show counters`, by name.
func (a *IMEAgent) Counters(t T) map[string]int {
	t.Helper()
	var all []struct {
		Name  string `json:"name"`
		Value int    `json:"value"`
	}
	a.show(t, "counters", &all)
	out := make(map[string]int)
	for _, c := range all {
		out[c.Name] = c.Value
	}
	return out
}

// VCR is a voice call record as `show vcrs` tells it.
type VCR struct {
	Role           int // 1 originating, 2 terminating
	Called, Caller string
	Start, Stop    time.Time
}

// VCRs are the records that wait for the peer server.
func (a *IMEAgent) VCRs(t T) (all []VCR) {
	t.Helper()
	a.show(t, "vcrs", &all)
	return all
}

// AgentCall is a call as `show calls` tells it.
type AgentCall struct {
	Way   string `json:"way"`   // "ime" or "pstn"
	State string `json:"state"` // "setup", "answered", "fallback", "fallen-back"
	From  string `json:"from"`
	To    string `json:"to"`
}

// Calls are the calls that stand.
func (a *IMEAgent) Calls(t T) (all []AgentCall) {
	t.Helper()
	a.show(t, "calls", &all)
	return all
}
