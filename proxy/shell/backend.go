package shell

import "imeproxy/proxy/observe"

// Backend is the running appliance as the commands see it. Every method may be called from several goroutines at once and gives a
// snapshot that nobody changes afterwards.
type Backend interface {
	Hostname() string // for the prompt
	Banner() string   // what a terminal shows before the first prompt, with line feeds; may be empty
	SignalingSessions() observe.SignalingSessions
	Statistics() observe.Statistics
	MediaSessions() observe.MediaSessions
	MediaTermination() observe.MediaTermination
	MappingSessions() observe.MappingSessions
	FallbackStatistics() observe.FallbackStatistics
	TLSProxy() observe.TLSProxySessions
	Conns() observe.Conns
	Certificates() observe.Certificates
	Version() observe.Version
	Health() observe.HealthList
	// RunningConfig gives the canonical text with secrets masked, of everything ("") or of one section, whose name is one of config.SectionNames. A
	// section that nothing is configured for is empty text. The error's words are shown to the operator.
	RunningConfig(section string) (string, error)
	// ClearConns ends every signaling session, with its connections and calls, and says how many connections that were.
	ClearConns() int
}

// StatisticsClearer is a Backend whose counters can be set to zero; with it the command `clear uc-ime statistics` exists.
type StatisticsClearer interface {
	ClearStatistics()
}
