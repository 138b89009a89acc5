package config

import (
	"strings"

	"imeproxy/proxy/config/keyword"
)

// names lists the objects that an argument of a command may name: those that exist. first is the command's first keyword, which tells what its own
// name is of.
func (c *Config) names(first, argument string) []string {
	switch argument {
	case "trustpoint":
		return namesOf(c.Trustpoints, func(x *Trustpoint) string { return x.Name })
	case "access_list", "id":
		return namesOf(c.AccessLists, func(x *AccessList) string { return x.Name })
	case "services":
		return namesOf(c.ServiceGroups, func(x *ServiceGroup) string { return x.Name })
	case "group":
		return namesOf(c.ObjectGroups, func(x *ObjectGroup) string { return x.Name })
	case "object", "mapped":
		return namesOf(c.Objects, func(x *NetworkObject) string { return x.Name })
	case "media_termination":
		return namesOf(c.MediaTerminations, func(x *MediaTermination) string { return x.Name })
	case "tls_proxy":
		return namesOf(c.TLSProxies, func(x *TLSProxy) string { return x.Name })
	case "class":
		return namesOf(c.ClassMaps, func(x *ClassMap) string { return x.Name })
	case "policy":
		return namesOf(c.PolicyMaps, func(x *PolicyMap) string { return x.Name })
	case "keypair", "label":
		return namesOf(c.CryptoActions, func(x CryptoAction) string { return x.Label })
	case "uc_ime":
		return c.names("uc-ime", "name")
	case "interface", "uc_ime_interface":
		if first == "interface" {
			return namesOf(c.Interfaces, func(x *Interface) string { return x.Name })
		}
		return namesOf(c.Interfaces, func(x *Interface) string { return x.Nameif })
	case "host":
		if c.PeerServer != nil {
			return namesOf(c.PeerServer.Bootstraps, func(x BootstrapHost) string { return x.Host })
		}
	case "name":
		return c.ownNames(first)
	}
	return nil
}

// ownNames lists the objects that a command makes.
func (c *Config) ownNames(first string) []string {
	switch first {
	case "object":
		return c.names(first, "object")
	case "object-group":
		return c.names(first, "group")
	case "media-termination":
		return c.names(first, "media_termination")
	case "tls-proxy":
		return c.names(first, "tls_proxy")
	case "class-map":
		return c.names(first, "class")
	case "policy-map":
		return c.names(first, "policy")
	case "username":
		return namesOf(c.Users, func(x *User) string { return x.Name })
	case "vapserver":
		if c.PeerServer != nil {
			return namesOf(c.PeerServer.VAPServers, func(x *VAPServer) string { return x.Name })
		}
	case "vapuser":
		if c.PeerServer != nil {
			return namesOf(c.PeerServer.VAPUsers, func(x *VAPUser) string { return x.Name })
		}
	case "uc-ime":
		if c.UCIME != nil {
			return []string{c.UCIME.Name}
		}
	}
	return nil
}

func namesOf[T any](list []T, name func(T) string) []string {
	var out []string
	for _, x := range list {
		if n := name(x); n != "" {
			out = append(out, n)
		}
	}
	return out
}

// firstKeyword is the first keyword of a line in full, behind `no`.
func firstKeyword(t *keyword.Tree[command], text string) string {
	words := strings.Fields(text)
	at := ""
	if len(words) > 0 && strings.EqualFold(words[0], "no") {
		words, at = words[1:], "no "
	}
	if len(words) == 0 {
		return ""
	}
	for _, c := range t.Help(at + words[0]) {
		if c.Keyword && (strings.EqualFold(c.Text, words[0]) || strings.HasPrefix(c.Text, strings.ToLower(words[0]))) {
			return c.Text
		}
	}
	return ""
}

// withNames puts the names that exist before the argument that they may stand for.
func withNames(base *Config, t *keyword.Tree[command], text string, found []keyword.Candidate) []keyword.Candidate {
	partial := keyword.Partial(text)
	first := firstKeyword(t, text)
	var out []keyword.Candidate
	seen := map[string]bool{}
	for _, c := range found {
		for _, n := range base.names(first, c.Argument) {
			if c.Argument != "" && strings.HasPrefix(n, partial) && !seen[n] {
				seen[n] = true
				out = append(out, keyword.Candidate{Text: n, Help: "exists", Keyword: true})
			}
		}
		out = append(out, c)
	}
	return out
}
