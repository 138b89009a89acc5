package main

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"os"
	"time"
)

// requestSocket is where the service asks for what concerns the machine: one line of JSON a connection, one line back.
const requestSocket = "/run/init.sock"

// sayTime is how long a question may take to come, and an answer to be taken.
const sayTime = 5 * time.Second

type request struct {
	Who      string `json:"who"`
	Do       string `json:"do"`
	Argument string `json:"argument"`
}

type reply struct {
	Text  string `json:"text,omitempty"`
	Error string `json:"error,omitempty"`
}

// listen hears the service, and nobody else.
func (m *machine) listen() (net.Listener, error) {
	l, err := net.Listen("unix", requestSocket)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(requestSocket, 0o600); err != nil {
		return nil, err
	}
	if err := os.Chown(requestSocket, daemonID, daemonID); err != nil {
		return nil, err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			m.answer(c)
		}
	}()
	return l, nil
}

func (m *machine) answer(c net.Conn) {
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(sayTime))
	line, err := bufio.NewReader(io.LimitReader(c, 4096)).ReadBytes('\n')
	if err != nil {
		return
	}
	var r request
	var a reply
	if err := json.Unmarshal(line, &r); err != nil {
		a.Error = "the question is no JSON"
	} else {
		a = m.do(r)
	}
	_ = c.SetDeadline(time.Now().Add(sayTime)) // a slow disk may have taken longer than that
	_ = json.NewEncoder(c).Encode(a)
}

// do carries out a request.
func (m *machine) do(r request) reply {
	switch r.Do {
	case "restart", "shutdown":
		m.log.line("system", r.Do+" was asked for by "+r.Who)
		m.asker.Store(r.Who)
		ask(m.requests, r.Do)
		return reply{}
	case "versions":
		return m.versions()
	case "switch-version":
		return m.switchVersion(r.Who)
	case "upgrade":
		return m.upgradeFrom(r.Argument, r.Who)
	case "upgrade-cancel":
		return m.cancelUpgrade(r.Who)
	case "upgrade-status":
		return m.upgradeStatus()
	case "logs":
		return logList()
	case "log":
		return logPiece(r.Argument)
	}
	return reply{Error: "this system does not know how to " + r.Do}
}
