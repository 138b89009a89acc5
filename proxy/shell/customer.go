package shell

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"imeproxy/proxy/config"
	"imeproxy/proxy/config/keyword"
	"imeproxy/proxy/observe"
)

// customerCommands ask for and show whom to call about the peer server (guide lines 1790-1815). It is part of the configuration, as `customer-info`.
func (x *executor) customerCommands() []entry {
	given := func() ([7]string, error) {
		s := x.keeper.Running().PeerServer
		if s == nil {
			return [7]string{}, errNoPeerServer
		}
		return s.Customer, nil
	}
	return []entry{
		{usage: "show ime customerinfo", help: "Whom to call about the peer server", run: func(*session, keyword.Args) (observe.View, error) {
			c, err := given()
			return observe.IMECustomer{Company: c[0], Unit: c[1], State: c[2], Country: c[3], ContactName: c[4], ContactEmail: c[5], ContactPhone: c[6]}, err
		}},
		{usage: "set ime customerinfo", help: "Questions about whom to call", run: func(s *session, _ keyword.Args) (observe.View, error) {
			c, err := given()
			if err == nil {
				s.askCustomer(c, 0)
			}
			return lines{}, err
		}},
	}
}

// askCustomer asks for one thing after the other. What was given already stands in brackets and is kept by an empty answer; quit ends it without a change.
func (s *session) askCustomer(c [7]string, i int) {
	q := &ask{prompt: observe.CustomerLabels[i]}
	if c[i] != "" {
		q.prompt += " [" + observe.Clean(c[i]) + "]"
	}
	q.prompt += ": "
	q.answer = func(_ context.Context, line string, w io.Writer) error {
		if strings.ContainsAny(line, "\r\n") { // the parser of the configuration would take it for several
			return &CommandError{Text: "% One line at a time is expected"}
		}
		switch text := strings.TrimSpace(line); text {
		case "quit":
			return nil
		case "":
		case "-":
			c[i] = ""
		default:
			c[i] = text
		}
		if i+1 < len(c) {
			s.askCustomer(c, i+1)
			return nil
		}
		change := []string{"peer-server"}
		for i, field := range config.CustomerFields {
			if c[i] == "" {
				change = append(change, " no customer-info "+field)
			} else {
				change = append(change, fmt.Sprintf(" customer-info %s %s", field, c[i]))
			}
		}
		return s.change(change, w)
	}
	s.ask = q
}

var errNoPeerServer = errors.New("no peer-server is configured: enter configure terminal, then peer-server")
