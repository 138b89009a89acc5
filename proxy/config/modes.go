package config

import (
	"strings"
	"sync"

	"imeproxy/proxy/config/keyword"
)

// mode is a set of commands that are known together.
type mode struct {
	name   string
	prompt string // between the parentheses of the prompt
	tree   keyword.Tree[command]
	all    []command // in the order in which they were added
	// natPair joins the words of a pair such as "(inside, outside)".
	natPair bool
}

// prepare joins what an ASA takes as one word although it may hold a blank.
func (m *mode) prepare(words []keyword.Word) []keyword.Word {
	if !m.natPair {
		return words
	}
	at := 1
	if strings.EqualFold(words[0].Text, "no") {
		at = 2
	}
	if len(words) <= at || !abbreviates(strings.ToLower(words[at-1].Text), "nat") || words[at].Text[0] != '(' {
		return words
	}
	for end := at; end < len(words) && end < at+5; end++ {
		if strings.HasSuffix(words[end].Text, ")") {
			pair := keyword.Join(words[at : end+1])
			if !strings.Contains(pair.Text, ",") {
				return words
			}
			out := append(append([]keyword.Word{}, words[:at]...), pair)
			return append(out, words[end+1:]...)
		}
	}
	return words
}

type allModes struct {
	global, intf, object, objectGroup, serviceGroup, media, ime, peer, trustpoint, tls, classMap, policyMap, policyClass *mode
}

// list is every mode, the outermost first.
func (a *allModes) list() []*mode {
	return []*mode{a.global, a.intf, a.object, a.objectGroup, a.serviceGroup, a.media, a.ime, a.peer, a.trustpoint, a.tls, a.classMap, a.policyMap, a.policyClass}
}

var (
	buildModes sync.Once
	builtModes *allModes
)

// modes are built once: the trees are only read afterwards.
func modes() *allModes {
	buildModes.Do(func() {
		builtModes = &allModes{
			global:       newMode("configuration", "config", systemCommands, interfaceGlobals, objectGlobals, groupGlobals, serviceGlobals, accessCommands, cryptoGlobals, tlsGlobals, imeGlobals, peerGlobals, policyGlobals, sshGlobals, loggingCommands),
			intf:         newMode("interface", "config-if", interfaceCommands),
			object:       newMode("object network", "config-network-object", objectCommands),
			objectGroup:  newMode("object-group network", "config-network-object-group", groupCommands),
			serviceGroup: newMode("object-group service", "config-service-object-group", serviceCommands),
			media:        newMode("media-termination", "config-media-termination", mediaCommands),
			ime:          newMode("uc-ime", "config-uc-ime", imeCommands),
			peer:         newMode("peer-server", "config-peer-server", peerCommands),
			trustpoint:   newMode("crypto ca trustpoint", "config-ca-trustpoint", trustpointCommands),
			tls:          newMode("tls-proxy", "config-tlsp", tlsCommands),
			classMap:     newMode("class-map", "config-cmap", classMapCommands),
			policyMap:    newMode("policy-map", "config-pmap", policyMapCommands),
			policyClass:  newMode("policy-map class", "config-pmap-c", policyClassCommands),
		}
	})
	return builtModes
}

func newMode(name, prompt string, parts ...func(m *mode)) *mode {
	m := &mode{name: name, prompt: prompt}
	defineKinds(&m.tree)
	for _, part := range parts {
		part(m)
	}
	m.put("exit", "Leave this mode", leave)
	m.put("quit", "Leave this mode", leave)
	m.put("end", "Leave configuration", func(p *parser, _ args) { p.modes = p.modes[:1] })
	return m
}

// command is a pattern of a mode with what it does.
type command struct {
	pattern, help string
	run           handler
	refused       bool // known, to say why it is refused
	body          bool // certificates may follow
}

func (m *mode) put(pattern, help string, run handler) {
	m.register(command{pattern: pattern, help: help, run: run})
}

// refuse adds a command of an ASA that has no place here; run reports the reason.
func (m *mode) refuse(pattern string, run handler) {
	m.register(command{pattern: pattern, help: "Not here", run: run, refused: true})
}

func (m *mode) register(c command) {
	m.all = append(m.all, c)
	m.tree.Add(c.pattern, c.help, c)
}

// leave goes one mode outwards; at the outermost there is nothing to do.
func leave(p *parser, _ args) {
	if len(p.modes) > 1 {
		p.modes = p.modes[:len(p.modes)-1]
	}
}

// add adds a command and its `no` form under the same pattern.
func (m *mode) add(pattern, help string, run, undo handler) {
	m.put(pattern, help, run)
	if undo != nil {
		m.put("no "+pattern, "Undo: "+help, undo)
	}
}

// addBody adds a command that certificates may follow.
func (m *mode) addBody(pattern, help string, run, undo handler) {
	m.register(command{pattern: pattern, help: help, run: run, body: true})
	m.put("no "+pattern, "Undo: "+help, undo)
}

// addNo adds a `no` form that is shorter than its command.
func (m *mode) addNo(pattern string, undo handler) {
	m.put("no "+pattern, "Undo: "+pattern, undo)
}

// enter begins a sub-mode of the mode that the command was found in.
func (p *parser) enter(m *mode) {
	p.modes = append(p.modes, m)
	p.lost = p.lost && len(p.modes) > 2
}

// enterMistaken enters the mode that a mistaken line was meant to enter, on an object that is thrown away, so that the lines
// behind it are judged by themselves instead of all being unknown.
func (p *parser) enterMistaken() {
	all := modes()
	for _, x := range []struct {
		words string
		m     *mode
	}{
		{"interface", all.intf},
		{"object network", all.object},
		{"media-termination", all.media},
		{"uc-ime", all.ime},
		{"peer-server", all.peer},
		{"crypto ca trustpoint", all.trustpoint},
		{"tls-proxy", all.tls},
		{"class-map", all.classMap},
		{"policy-map", all.policyMap},
		{"class", all.policyClass},
	} {
		want := strings.Fields(x.words)
		if x.m == all.classMap && strings.EqualFold(p.words[0].Text, "class") {
			continue // the command of a policy map, not an abbreviation
		}
		if len(p.words) < len(want) || (p.modes[len(p.modes)-1] == all.ime && x.m == all.media) {
			continue
		}
		fits := true
		for i, k := range want {
			t := strings.ToLower(p.words[i].Text)
			fits = fits && (t == k || (len(t) > 3 && abbreviates(t, k)))
		}
		if !fits {
			continue
		}
		p.throwAway()
		p.modes = p.modes[:1]
		if x.m == all.policyClass {
			p.modes = append(p.modes, all.policyMap)
		}
		p.enter(x.m)
		p.lost = true
		return
	}
}

func (p *parser) throwAway() {
	p.intf, p.obj, p.mta = &Interface{Where: Places{}}, &NetworkObject{Where: Places{}}, &MediaTermination{Where: Places{}}
	p.ime, p.peer, p.tp, p.tls = newUCIME("", Pos{}), newPeerServer(Pos{}), &Trustpoint{Where: Places{}}, &TLSProxy{Where: Places{}}
	p.cmap, p.class = &ClassMap{Where: Places{}}, &PolicyClass{}
	if p.pmap == nil {
		p.pmap = &PolicyMap{}
	}
}
