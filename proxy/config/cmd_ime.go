package config

import (
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// minMediaPairs is the smallest number of RTP and RTCP port pairs that is worth a range: one call with audio and video each way.
const minMediaPairs = 4

func imeGlobals(m *mode) {
	m.add("media-termination <name:NAME64>", "Addresses that media ends on", enterMedia, func(p *parser, a args) {
		before := len(p.c.MediaTerminations)
		p.c.MediaTerminations = slices.DeleteFunc(p.c.MediaTerminations, func(x *MediaTermination) bool { return x.Name == a.Text("name") })
		if len(p.c.MediaTerminations) == before {
			p.absent(a.arg("name").Col, "media-termination")
		}
	})
	m.add("uc-ime <name:NAME64>", "The Intercompany Media Engine proxy", enterUCIME, func(p *parser, a args) {
		if p.c.UCIME == nil || p.c.UCIME.Name != a.Text("name") {
			p.absent(a.arg("name").Col, "uc-ime")
			return
		}
		p.c.UCIME = nil
	})
	timeoutCommands(m)
	m.refuse("timeout <rest:LINE>", func(p *parser, _ args) {
		p.fail(p.pos().Col, "timeout is not supported: it would have no effect", "leave it out; dialogs end by BYE, by their session timer (RFC 4028) or by silence")
	})
}

func enterMedia(p *parser, a args) {
	name := a.Text("name")
	p.enter(modes().media)
	if p.mta = p.c.MediaTermination(name); p.mta != nil {
		return
	}
	p.mta = &MediaTermination{Pos: p.pos(), Name: name, MinPort: DefaultMinPort, MaxPort: DefaultMaxPort, BatchWait: DefaultBatchWait, Where: Places{}}
	if p.room(len(p.c.MediaTerminations), "media-terminations") {
		p.c.MediaTerminations = append(p.c.MediaTerminations, p.mta)
	}
}

func mediaCommands(m *mode) {
	m.add("address <address:HOST> [interface <interface:NAMEIF>]", "A media-termination address", addMediaAddress, removeMediaAddress)
	const span = "rtp-min-port <minimum:1024-65535> rtp-max-port=rtp-maxport <maximum:1024-65535>"
	m.add(span, "Ports for media", setMediaPorts, func(p *parser, _ args) { p.mta.MinPort, p.mta.MaxPort = DefaultMinPort, DefaultMaxPort })
	m.addNo("rtp-min-port", func(p *parser, _ args) { p.mta.MinPort, p.mta.MaxPort = DefaultMinPort, DefaultMaxPort })
	m.add("engine {xdp|tproxy|sockets}", "What moves the packets", func(p *parser, a args) {
		for _, name := range []string{"xdp", "tproxy", "sockets"} {
			if a.Has(name) {
				p.mta.Engine = name
			}
		}
	}, func(p *parser, _ args) { p.mta.Engine = "" })
	m.addNo("engine", func(p *parser, _ args) { p.mta.Engine = "" })
	m.add("batch-wait <microseconds:0-500>", "How long packets wait for others to come, in microseconds", func(p *parser, a args) {
		p.mta.BatchWait = time.Duration(a.Int("microseconds")) * time.Microsecond
	}, func(p *parser, _ args) { p.mta.BatchWait = DefaultBatchWait })
	m.addNo("batch-wait", func(p *parser, _ args) { p.mta.BatchWait = DefaultBatchWait })
}

func addMediaAddress(p *parser, a args) {
	x := MediaAddress{Pos: p.pos(), Addr: netip.MustParseAddr(a.Text("address")), Interface: a.Text("interface")}
	for i, old := range p.mta.Addresses {
		if old.Interface == x.Interface {
			if old.Addr != x.Addr {
				p.fail(a.arg("address").Col, "a media-termination has one address on each interface",
					fmt.Sprintf("line %d sets %s; remove that one", old.Line, old.Addr))
			}
			p.mta.Addresses[i].Pos = x.Pos
			return
		}
	}
	if p.room(len(p.mta.Addresses), "media-termination addresses") {
		p.mta.Addresses = append(p.mta.Addresses, x)
	}
}

func removeMediaAddress(p *parser, a args) {
	before := len(p.mta.Addresses)
	p.mta.Addresses = slices.DeleteFunc(p.mta.Addresses, func(x MediaAddress) bool {
		return x.Addr.String() == a.Text("address") && x.Interface == a.Text("interface")
	})
	if len(p.mta.Addresses) == before {
		p.absent(a.arg("address").Col, "address")
	}
}

func setMediaPorts(p *parser, a args) {
	lo, hi := a.Int("minimum"), a.Int("maximum")
	if hi < lo {
		p.fail(a.arg("maximum").Col, "the range of ports ends before it begins", fmt.Sprintf("rtp-min-port %d rtp-max-port %d", hi, lo))
		return
	}
	// RTP takes an even port and RTCP the odd one above it.
	if pairs := (hi+1)/2 - (lo+1)/2; pairs < minMediaPairs {
		p.fail(a.arg("maximum").Col, fmt.Sprintf("the range holds %d pairs of ports", max(pairs, 0)),
			fmt.Sprintf("at least %d pairs are needed, each an even port and the one above it", minMediaPairs))
		return
	}
	p.mta.MinPort, p.mta.MaxPort = uint16(lo), uint16(hi)
	p.mta.Where["rtp-min-port"] = p.pos()
}

func newUCIME(name string, at Pos) *UCIME {
	return &UCIME{
		Pos: at, Name: name, MonitoringTimer: DefaultMonitoringTimer, HoldDownTimer: DefaultHoldDownTimer, NotificationRate: DefaultNotificationRate, MappingQuota: DefaultMappingQuota,
		MappingLow: DefaultMappingLow, MappingHigh: DefaultMappingHigh, MappingLifetime: DefaultMappingLifetime, Where: Places{},
	}
}

func enterUCIME(p *parser, a args) {
	p.enter(modes().ime)
	p.ime = newUCIME(a.Text("name"), p.pos())
	switch old := p.c.UCIME; {
	case old == nil:
		p.c.UCIME = p.ime
	case old.Name == p.ime.Name:
		p.ime = old
	default:
		p.fail(a.arg("name").Col, "only one uc-ime can be configured", fmt.Sprintf("line %d configures %q", old.Line, old.Name))
		p.lost = true
	}
}

func imeCommands(m *mode) {
	m.add("media-termination <media_termination:NAME64>", "The media-termination to use", func(p *parser, a args) {
		p.ime.MediaTermination = a.Text("media_termination")
		p.ime.Where["media-termination"] = p.pos()
	}, nil)
	m.addNo("media-termination [<media_termination:NAME64>]", func(p *parser, a args) {
		p.unset(&p.ime.MediaTermination, a.Text("media_termination"), a, "media_termination")
	})
	m.add("ucm address <address:HOST> trunk-security-mode {non-secure=nonsecure|secure}", "A call agent, by its real address", setUCM, removeUCM)
	m.addNo("ucm address <address:HOST>", removeUCM)
	m.add("ticket epoch <epoch:1-255> password <password:PASSWORD>", "Key of the tickets", func(p *parser, a args) {
		p.ime.TicketEpoch, p.ime.TicketPassword = a.Int("epoch"), Secret(a.Text("password"))
		p.ime.Where["ticket"] = p.pos()
	}, nil)
	m.addNo("ticket [epoch <epoch:1-255> [password <password:WORD>]]", func(p *parser, a args) {
		p.forgetTicket(a, &p.ime.TicketEpoch, &p.ime.TicketPassword)
	})
	m.add("ticket reject-action {drop|reject}", "What a request with a bad ticket gets", func(p *parser, a args) { p.ime.TicketRejectDrop = a.Has("drop") },
		func(p *parser, _ args) { p.ime.TicketRejectDrop = false })
	m.addNo("ticket reject-action", func(p *parser, _ args) { p.ime.TicketRejectDrop = false })
	m.add("transfer permit <prefix:PREFIX>", "Numbers that other enterprises may have calls transferred and redirected to, by their beginning", func(p *parser, a args) {
		if t := a.Text("prefix"); !slices.Contains(p.ime.Transfers, t) && p.room(len(p.ime.Transfers), "transfer permit commands") {
			p.ime.Transfers = append(p.ime.Transfers, t)
		}
	}, func(p *parser, a args) {
		i := slices.Index(p.ime.Transfers, a.Text("prefix"))
		if i < 0 {
			p.absent(a.arg("prefix").Col, "transfer permit")
			return
		}
		p.ime.Transfers = slices.Delete(p.ime.Transfers, i, i+1)
	})
	m.add("rtcp", "Convert RTCP between RTP and SRTP", func(p *parser, _ args) { p.ime.NoRTCP = false }, func(p *parser, _ args) { p.ime.NoRTCP = true })
	fallbackCommands(m)
	m.add("quality-report collector <address:HOST> [port <port:1-65535>]", "Who gets a report on the quality of each call (RFC 6035)", func(p *parser, a args) {
		p.ime.Collector = netip.AddrPortFrom(netip.MustParseAddr(a.Text("address")), DefaultCollectorPort)
		if a.Has("port") {
			p.ime.Collector = netip.AddrPortFrom(p.ime.Collector.Addr(), uint16(a.Int("port")))
		}
	}, nil)
	m.addNo("quality-report collector [<address:HOST> [port <port:1-65535>]]", func(p *parser, a args) {
		if text := a.Text("address"); text != "" && (!p.ime.Collector.IsValid() || text != p.ime.Collector.Addr().String()) {
			p.absent(a.arg("address").Col, "collector")
			return
		}
		p.ime.Collector = netip.AddrPort{}
	})
	m.add("quality-report rtcp-xr", "Tell far ends by RTCP XR how their sound arrives (RFC 3611)", func(p *parser, _ args) { p.ime.ReportXR = true },
		func(p *parser, _ args) { p.ime.ReportXR = false })
	m.add("mapping-service listening-interface <interface:NAMEIF> [listening-port <port:1024-65535>] uc-ime-interface <uc_ime_interface:NAMEIF>",
		"Service of off-path deployments", setMapping, func(p *parser, _ args) { p.ime.Mapping = nil })
	m.addNo("mapping-service", func(p *parser, _ args) { p.ime.Mapping = nil })
	mappingCommands(m)
	timeoutCommands(m)
}

// forgetTicket takes epoch and password back, unless another epoch is meant.
func (p *parser) forgetTicket(a args, epoch *int, password *Secret) {
	if n := a.Int("epoch"); n != 0 && *epoch != 0 && n != *epoch {
		p.fail(a.arg("epoch").Col, "the epoch is another one", fmt.Sprintf("it is %d", *epoch))
		return
	}
	*epoch, *password = 0, ""
}

// mappingCommands are settings of the off-path mapping service (protocol file mapping.md).
func mappingCommands(m *mode) {
	m.add("mapping-service quota <mappings:1-60000>", "Mappings that a call agent may have", func(p *parser, a args) { p.ime.MappingQuota = a.Int("mappings") }, nil)
	m.addNo("mapping-service quota [<mappings:1-60000>]", func(p *parser, _ args) { p.ime.MappingQuota = DefaultMappingQuota })
	m.add("mapping-service port-range <low:1024-65535> <high:1024-65535>", "Ports of the mappings", func(p *parser, a args) {
		low, high := uint16(a.Int("low")), uint16(a.Int("high"))
		if high < low {
			p.fail(a.arg("high").Col, "the highest port is below the lowest", fmt.Sprintf("it must be at least %d", low))
			return
		}
		p.ime.MappingLow, p.ime.MappingHigh = low, high
	}, nil)
	m.addNo("mapping-service port-range [<low:1024-65535> <high:1024-65535>]", func(p *parser, _ args) {
		p.ime.MappingLow, p.ime.MappingHigh = DefaultMappingLow, DefaultMappingHigh
	})
	m.add("mapping-service lifetime <seconds:5-86400>", "How long a mapping lives after its last use, in seconds", func(p *parser, a args) {
		p.ime.MappingLifetime = time.Duration(a.Int("seconds")) * time.Second
	}, nil)
	m.addNo("mapping-service lifetime [<seconds:5-86400>]", func(p *parser, _ args) { p.ime.MappingLifetime = DefaultMappingLifetime })
	m.add("mapping-service allow-private", "Let private addresses be called", func(p *parser, _ args) { p.ime.MappingAllowPrivate = true },
		func(p *parser, _ args) { p.ime.MappingAllowPrivate = false })
}

// timeoutCommands stand in global mode, as on an ASA, and are taken in the uc-ime's own too.
func timeoutCommands(m *mode) {
	m.add("timeout uc-ime-mapping <minutes:5-60>", "How long a connection to the mapping service may be idle, in minutes", func(p *parser, a args) {
		p.c.MappingIdle = time.Duration(a.Int("minutes")) * time.Minute
	}, nil)
	m.addNo("timeout uc-ime-mapping [<minutes:5-60>]", func(p *parser, _ args) { p.c.MappingIdle = 0 })
}

func fallbackCommands(m *mode) {
	m.add("fallback monitoring timer <milliseconds:10-600>", "Time between two samples of the media, in milliseconds", func(p *parser, a args) {
		p.ime.MonitoringTimer = time.Duration(a.Int("milliseconds")) * time.Millisecond
	}, nil)
	m.addNo("fallback monitoring timer [<milliseconds:10-600>]", func(p *parser, _ args) {
		p.ime.MonitoringTimer = DefaultMonitoringTimer
	})
	m.add("fallback hold-down timer <seconds:10-360>", "Time before a call falls back to the PSTN, in seconds", func(p *parser, a args) {
		p.ime.HoldDownTimer = time.Duration(a.Int("seconds")) * time.Second
	}, nil)
	m.addNo("fallback hold-down timer [<seconds:10-360>]", func(p *parser, _ args) {
		p.ime.HoldDownTimer = DefaultHoldDownTimer
	})
	m.add("fallback notification rate <calls:1-1000>", "How many calls may be told to fall back to the PSTN in any second", func(p *parser, a args) {
		p.ime.NotificationRate = a.Int("calls")
	}, nil)
	m.addNo("fallback notification rate [<calls:1-1000>]", func(p *parser, _ args) { p.ime.NotificationRate = DefaultNotificationRate })
	m.add("fallback sensitivity-file <file:FBS>", "File that says when quality is bad", func(p *parser, a args) {
		p.ime.SensitivityFile = a.Text("file")
	}, nil)
	m.addNo("fallback sensitivity-file [<file:FBS>]", func(p *parser, a args) {
		p.unset(&p.ime.SensitivityFile, a.Text("file"), a, "file")
	})
}

func setUCM(p *parser, a args) {
	u := UCM{Pos: p.pos(), Addr: netip.MustParseAddr(a.Text("address")), Secure: a.Has("secure")}
	for i, old := range p.ime.UCMs {
		if old.Addr == u.Addr {
			p.ime.UCMs[i] = u
			return
		}
	}
	if p.room(len(p.ime.UCMs), "ucm addresses") {
		p.ime.UCMs = append(p.ime.UCMs, u)
	}
}

func removeUCM(p *parser, a args) {
	before := len(p.ime.UCMs)
	p.ime.UCMs = slices.DeleteFunc(p.ime.UCMs, func(u UCM) bool { return u.Addr.String() == a.Text("address") })
	if len(p.ime.UCMs) == before {
		p.absent(a.arg("address").Col, "ucm")
	}
}

func setMapping(p *parser, a args) {
	s := &MappingService{Pos: p.pos(), ListenInterface: a.Text("interface"), ListenPort: DefaultMappingPort, UCIMEInterface: a.Text("uc_ime_interface")}
	if n := a.Int("port"); n != 0 {
		s.ListenPort = uint16(n)
	}
	if old := p.ime.Mapping; old != nil && (old.ListenInterface != s.ListenInterface || old.ListenPort != s.ListenPort || old.UCIMEInterface != s.UCIMEInterface) {
		p.fail(p.pos().Col, "only one mapping-service can be configured", fmt.Sprintf("line %d configures another; remove it", old.Line))
		return
	}
	if s.ListenInterface == s.UCIMEInterface {
		p.fail(a.arg("uc_ime_interface").Col, "both interfaces of the mapping service are the same", "listening-interface is the inside one, uc-ime-interface the outside one")
		return
	}
	p.ime.Mapping = s
}
