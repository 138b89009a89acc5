package machine

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"
)

// SocketVariable is what the first process gives its service: the path of its socket.
const SocketVariable = "IMEPROXY_INIT"

const (
	// patience is how long an answer may take. The first process answers, and works afterwards; but it reads an upgrade before, from a disk that
	// may be slow.
	patience  = 30 * time.Second
	maxAnswer = 64 << 10
)

// Client asks. It may be used from any goroutine.
type Client struct{ socket string }

// FromEnvironment gives the client of the appliance that this process is the service of, or nil.
func FromEnvironment() *Client {
	if s := os.Getenv(SocketVariable); s != "" {
		return &Client{s}
	}
	return nil
}

// New gives a client of a socket.
func New(socket string) *Client { return &Client{socket} }

type question struct {
	Who      string `json:"who"`
	Do       string `json:"do"`
	Argument string `json:"argument,omitempty"`
}

type answer struct {
	Text  string `json:"text,omitempty"`
	Error string `json:"error,omitempty"`
}

// Do asks for something on behalf of who, and gives the text of the answer. What the first process refuses is an error with its words.
func (c *Client) Do(ctx context.Context, who, what, argument string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", c.socket)
	if err != nil {
		return "", fmt.Errorf("the first process of the appliance: %w", err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := json.NewEncoder(conn).Encode(question{who, what, argument}); err != nil {
		return "", fmt.Errorf("the first process of the appliance: %w", err)
	}
	line, err := bufio.NewReader(io.LimitReader(conn, maxAnswer)).ReadBytes('\n')
	var a answer
	if err == nil {
		err = json.Unmarshal(line, &a)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return "", fmt.Errorf("the first process of the appliance has not answered within %v: it may still do what it was asked for", patience)
	}
	if err != nil {
		return "", fmt.Errorf("answer of the first process of the appliance: %w", err)
	}
	if a.Error != "" {
		return "", errors.New(a.Error)
	}
	return a.Text, nil
}
