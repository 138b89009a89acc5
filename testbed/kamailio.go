package testbed

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"text/template"
	"time"
)

// CallAgent is an enterprise's call agent: Kamailio, SIP over TCP to phones
// (port 5060) and to other enterprises (TrunkPort). It record-routes, and it
// adds the ticket stored for a number to calls that leave the enterprise.
type CallAgent struct {
	e    *Enterprise
	lab  *Lab
	file string
	sock string
	proc *Process
}

var callAgentConfig = template.Must(template.New("ucm").Parse(`#!KAMAILIO
debug=1
log_stderror=yes
fork=yes
children=1
tcp_children=3
auto_aliases=no
dns=no
rev_dns=no
server_header="Server: lab call agent"
tcp_connection_lifetime=3605
tcp_connect_timeout=4
listen=tcp:{{.UCM}}:5060
listen=tcp:{{.UCM}}:{{.Port}}
loadmodule "tm.so"
loadmodule "tmx.so"
loadmodule "sl.so"
loadmodule "rr.so"
loadmodule "pv.so"
loadmodule "maxfwd.so"
loadmodule "textops.so"
loadmodule "siputils.so"
loadmodule "xlog.so"
loadmodule "htable.so"
loadmodule "jsonrpcs.so"
modparam("rr", "enable_double_rr", 1)
modparam("htable", "htable", "ticket=>size=8;")
modparam("jsonrpcs", "transport", 4)
modparam("jsonrpcs", "dgram_socket", "{{.Sock}}")
modparam("tm", "fr_timer", 10000)
modparam("tm", "fr_inv_timer", 120000)

request_route {
  if (!mf_process_maxfwd_header("10")) { sl_send_reply("483", "Too Many Hops"); exit; }
  xlog("L_NOTICE", "$rm $ru from $si:$sp on port $Rp call $ci\n");
  if (has_totag()) {
    if (!loose_route()) {
      if (is_method("ACK") && t_check_trans()) t_relay();
      exit;
    }
    t_relay();
    exit;
  }
  if (is_method("CANCEL")) { if (t_check_trans()) t_relay(); exit; }
  if (is_method("ACK")) { if (t_check_trans()) t_relay(); exit; }
  t_check_trans();
  # The phone's preloaded route is this call agent.
  remove_hf("Route");
  if (is_method("OPTIONS") && $rU == $null) { sl_send_reply("200", "OK"); exit; }
  if (is_method("REGISTER")) { sl_send_reply("200", "OK"); exit; }
  record_route();
  if ($rU == "{{.Number}}") {
    $ru = "sip:{{.Number}}@{{.Phone}}:5060;transport=tcp";
    $fs = "tcp:{{.UCM}}:5060";
    t_relay();
    exit;
  }
  # Only a phone may call out: from the trunk this would be toll fraud.
  if ($Rp == {{.Port}}) { sl_send_reply("404", "Not Found"); exit; }
  $ru = "sip:" + $rU + "@{{.FarDomain}}";
  $du = "sip:{{.Target}};transport=tcp";
  $fs = "tcp:{{.UCM}}:{{.Port}}";
  if ($sht(ticket=>$rU) != $null) {
    append_hf("X-Cisco-UC-IME-Ticket: $sht(ticket=>$rU)\r\n");
  }
  t_relay();
}
`))

// newCallAgent writes the configuration.
func newCallAgent(l *Lab, e *Enterprise) *CallAgent {
	name := "ucm-" + e.Letter
	c := &CallAgent{e: e, lab: l, file: filepath.Join(l.Dir, name+".cfg"), sock: filepath.Join(l.socks, name)}
	writeTemplate(l.T, c.file, callAgentConfig, map[string]any{
		"UCM": e.UCMIP, "Phone": e.PhoneIP, "Port": TrunkPort, "Number": e.Number,
		"FarDomain": e.far.Domain, "Target": e.TrunkTarget(), "Sock": c.sock,
	})
	return c
}

// Start starts the call agent and returns when it answers.
func (c *CallAgent) Start(t T) {
	t.Helper()
	c.proc = startKamailio(t, c.lab, c.e.UCMHost, "ucm-"+c.e.Letter, c.file, "")
	c.lab.onClose(c.proc.Kill)
	Until(t, 20*time.Second, "call agent "+c.e.Letter+" answers on its control socket", func() bool {
		_, err := c.RPC("core.uptime")
		return err == nil || !c.proc.Running()
	})
	if !c.proc.Running() {
		t.Fatalf("call agent %s ended at once:\n%s", c.e.Letter, tail(c.proc.Log(), 3000))
	}
}

// Kill ends the call agent without notice.
func (c *CallAgent) Kill() { c.proc.Kill() }

// Log is what the call agent wrote: a line for each request that it saw.
func (c *CallAgent) Log() string { return c.proc.Log() }

// SetTicket stores the ticket for a number; empty removes it.
func (c *CallAgent) SetTicket(t T, number, ticket string) {
	t.Helper()
	args := []any{"htable.sets", "ticket", number, ticket}
	if ticket == "" {
		args = []any{"htable.delete", "ticket", number}
	}
	if out, err := c.RPC(args[0].(string), args[1:]...); err != nil {
		t.Fatalf("store the ticket at call agent %s: %v (%s)", c.e.Letter, err, out)
	}
}

// RPC calls a function of Kamailio's control interface (JSON-RPC over a Unix
// datagram) and returns its result as JSON.
func (c *CallAgent) RPC(method string, params ...any) (json.RawMessage, error) {
	local := fmt.Sprintf("%s.%d", c.sock, time.Now().UnixNano())
	conn, err := net.DialUnix("unixgram", &net.UnixAddr{Name: local, Net: "unixgram"}, &net.UnixAddr{Name: c.sock, Net: "unixgram"})
	if err != nil {
		return nil, err
	}
	defer os.Remove(local)
	defer conn.Close()
	req, err := json.Marshal(map[string]any{"jsonrpc": "2.0", "id": 1, "method": method, "params": append([]any{}, params...)})
	if err != nil {
		return nil, err
	}
	if _, err := conn.Write(req); err != nil {
		return nil, err
	}
	if err := conn.SetReadDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return nil, err
	}
	buf := make([]byte, 65536)
	n, err := conn.Read(buf)
	if err != nil {
		return nil, err
	}
	var resp struct {
		Result json.RawMessage `json:"result"`
		Error  *struct {
			Message string `json:"message"`
		} `json:"error"`
	}
	if err := json.Unmarshal(buf[:n], &resp); err != nil {
		return nil, fmt.Errorf("answer of kamailio: %w", err)
	}
	if resp.Error != nil {
		return nil, fmt.Errorf("kamailio: %s", resp.Error.Message)
	}
	return resp.Result, nil
}

// startKamailio runs kamailio on a configuration file, small and in the
// foreground; on one core, for measurements, not that small.
func startKamailio(t T, l *Lab, h *Host, name, file, core string) *Process {
	t.Helper()
	runDir := filepath.Join(l.Dir, name+"-run")
	if err := os.MkdirAll(runDir, 0o755); err != nil {
		t.Fatalf("folder of %s: %v", name, err)
	}
	args := []string{"kamailio", "-w", l.Dir, "-f", file, "-DD", "-E", "-M", "4", "-Y", runDir, "-P", filepath.Join(runDir, "pid"), "-m", "32"}
	if core != "" {
		args = append([]string{"taskset", "-c", core}, args...)
		args[len(args)-1] = "512"
	}
	p, err := h.Start(name, StartOptions{Dir: l.Dir}, args...)
	if err != nil {
		t.Fatalf("%v", err)
	}
	l.track(p)
	return p
}

// The range of media ports of measurements with many calls: some 32,000 pairs.
const manyPortsFrom, manyPortsTo = 1024, 65535

// startRTPengine runs rtpengine and returns when it serves: Kamailio looks for it once at its start.
func startRTPengine(t T, l *Lab, h *Host, name, core string, interfaces ...string) *Process {
	t.Helper()
	args := append([]string{
		"rtpengine", "--config-file=none", "--foreground",
		"--listen-ng=127.0.0.1:2223", "--table=-1", "--port-min=16384", "--port-max=32767", "--num-threads=1",
		"--log-stderr", "--log-level=5",
	}, interfaces...)
	if core != "" {
		args = append([]string{"taskset", "-c", core}, args...)
		args = append(args, fmt.Sprintf("--port-min=%d", manyPortsFrom), fmt.Sprintf("--port-max=%d", manyPortsTo))
	}
	p, err := h.Start(name, StartOptions{}, args...)
	if err != nil {
		t.Fatalf("%v", err)
	}
	l.track(p)
	awaitListening(t, p, h, "-Hlun", 2223)
	return p
}

// writeTemplate fills a template into a file.
func writeTemplate(t T, path string, tmpl *template.Template, data any) {
	t.Helper()
	var b strings.Builder
	if err := tmpl.Execute(&b, data); err != nil {
		t.Fatalf("%s: %v", filepath.Base(path), err)
	}
	writeFile(t, path, b.String())
}

// writeFile writes a file of the lab.
func writeFile(t T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatalf("%v", err)
	}
}

// ForeignEdge is an edge of other make: Kamailio (mutual TLS outside, TCP
// inside) with rtpengine (SDES-SRTP outside, RTP inside).
type ForeignEdge struct {
	e         *Enterprise
	lab       *Lab
	file      string
	kam, rtpe *Process
}

var foreignEdgeTLS = template.Must(template.New("tls").Parse(`{{range $s := .Sections}}[{{$s}}:default]
method = TLSv1.2+
verify_certificate = yes
require_certificate = yes
private_key = {{$.Key}}
certificate = {{$.Cert}}
ca_list = {{$.CA}}
{{end}}`))

var foreignEdgeConfig = template.Must(template.New("edge").Parse(`#!KAMAILIO
debug=1
log_stderror=yes
fork=yes
children=1
tcp_children=3
enable_tls=yes
auto_aliases=no
dns=no
rev_dns=no
tcp_connection_lifetime=3605
listen=tls:{{.Mapped}}:{{.Port}}
listen=tcp:{{.Inside}}:{{.Port}}
loadmodule "tls.so"
loadmodule "tm.so"
loadmodule "tmx.so"
loadmodule "sl.so"
loadmodule "rr.so"
loadmodule "pv.so"
loadmodule "maxfwd.so"
loadmodule "textops.so"
loadmodule "siputils.so"
loadmodule "xlog.so"
modparam("tls", "config", "{{.TLS}}")
{{if .Media}}loadmodule "sdpops.so"
loadmodule "rtpengine.so"
modparam("rtpengine", "rtpengine_sock", "udp:127.0.0.1:2223")
{{end}}modparam("rr", "enable_double_rr", 1)

request_route {
  if (!mf_process_maxfwd_header("10")) { sl_send_reply("483", "Too Many Hops"); exit; }
  if ($pr == "tls") xlog("L_NOTICE", "$rm over TLS from $si verified=$tls_peer_verified version=$tls_version cipher=$tls_cipher_info\n");
  if (has_totag()) {
    if (!loose_route()) {
      if (is_method("ACK") && t_check_trans()) t_relay();
      exit;
    }
{{if .Media}}    if (is_method("BYE")) rtpengine_delete();
    if (is_method("INVITE")) route(MEDIA);
{{end}}    t_relay();
    exit;
  }
  if (is_method("CANCEL")) { if (t_check_trans()) t_relay(); exit; }
  t_check_trans();
  if (is_method("OPTIONS")) { sl_send_reply("200", "OK"); exit; }
  record_route();
  if ($pr == "tls") {
    $du = "sip:{{.UCM}}:{{.Port}};transport=tcp";
    $fs = "tcp:{{.Inside}}:{{.Port}}";
  } else {
    $du = "sip:{{.FarMapped}}:{{.Port}};transport=tls";
    $fs = "tls:{{.Mapped}}:{{.Port}}";
  }
{{if .Media}}  if (is_method("INVITE")) route(MEDIA);
{{end}}  t_relay();
}
{{if .Media}}route[MEDIA] {
  if (!has_body("application/sdp")) { t_on_reply("ANSWER"); return; }
  if ($pr == "tls") rtpengine_offer("replace-origin ICE=remove RTP/AVP direction=outside direction=inside");
  else rtpengine_offer("replace-origin ICE=remove RTP/SAVP DTLS=off direction=inside direction=outside");
  t_on_reply("ANSWER");
}
onreply_route[ANSWER] {
  if (has_body("application/sdp")) rtpengine_answer("replace-origin");
}
{{end}}`))

// newForeignEdge writes the configuration.
func newForeignEdge(l *Lab, e *Enterprise) *ForeignEdge {
	name := "edge-" + e.Letter
	f := &ForeignEdge{e: e, lab: l, file: filepath.Join(l.Dir, name+".cfg")}
	tlsFile := filepath.Join(l.Dir, name+"-tls.cfg")
	writeTemplate(l.T, tlsFile, foreignEdgeTLS, map[string]any{
		"Sections": []string{"server", "client"}, "Key": e.KeyFile, "Cert": e.CertFile, "CA": l.CA.File,
	})
	writeTemplate(l.T, f.file, foreignEdgeConfig, map[string]any{
		"Mapped": e.Mapped, "Inside": e.InsideIP, "UCM": e.UCMIP, "FarMapped": e.far.Mapped, "Port": TrunkPort, "TLS": tlsFile, "Media": !e.side.NoMedia,
	})
	return f
}

// Start starts both programs and returns when they serve.
func (f *ForeignEdge) Start(t T) {
	t.Helper()
	if !f.e.side.NoMedia {
		f.rtpe = startRTPengine(t, f.lab, f.e.EdgeHost, "rtpengine-"+f.e.Letter, f.e.side.Core,
			fmt.Sprintf("--interface=inside/%s", f.e.MediaIn), fmt.Sprintf("--interface=outside/%s", f.e.MediaOut))
	}
	f.lab.onClose(f.Stop)
	f.kam = startKamailio(t, f.lab, f.e.EdgeHost, "edge-"+f.e.Letter, f.file, f.e.side.Core)
	Until(t, 20*time.Second, "the foreign edge listens", func() bool {
		out, err := f.e.EdgeHost.Run("ss", "-Hltn", "sport", "=", fmt.Sprintf(":%d", TrunkPort))
		return err == nil && len(nonEmptyLines(out)) == 2 || !f.kam.Running()
	})
	if !f.kam.Running() {
		t.Fatalf("the foreign edge ended at once:\n%s", tail(f.kam.Log(), 3000))
	}
}

// Log is what the SIP part of the edge wrote: a line for each TLS request.
func (f *ForeignEdge) Log() string { return f.kam.Log() }

// Stop ends both programs.
func (f *ForeignEdge) Stop() {
	if f.kam != nil {
		f.kam.Kill()
	}
	if f.rtpe != nil {
		f.rtpe.Stop(syscall.SIGTERM, 5*time.Second)
	}
}
