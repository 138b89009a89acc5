package peerserver

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"
)

// Limits of webhooks.
const (
	maxQueuedAlerts = 64
	webhookTimeout  = 10 * time.Second
)

// Webhooks sends alerts by POST, one after the other. What does not fit into the queue, or is not taken by the receiver, is logged and is lost:
// an alert stands in the log in any case. Make it by NewWebhooks.
type Webhooks struct {
	log    *slog.Logger
	client *http.Client
	queue  chan webhook
}

type webhook struct {
	url  string
	body []byte
	name string
}

// NewWebhooks makes one; Run sends.
func NewWebhooks(log *slog.Logger) *Webhooks {
	return &Webhooks{log: log, client: &http.Client{Timeout: webhookTimeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}, queue: make(chan webhook, maxQueuedAlerts)}
}

// Send queues an alert for a URL; an empty one: nobody. It never blocks.
func (w *Webhooks) Send(url string, a Alert) {
	if url == "" {
		return
	}
	body, err := json.Marshal(a)
	if err != nil {
		w.log.Error("an alert was not sent to the webhook", "alert", a.Name, "err", err)
		return
	}
	select {
	case w.queue <- webhook{url, body, a.Name}:
	default:
		w.log.Warn("an alert was not sent to the webhook: too many wait", "alert", a.Name)
	}
}

// Run sends until ctx ends.
func (w *Webhooks) Run(ctx context.Context) {
	defer w.client.CloseIdleConnections()
	for {
		select {
		case <-ctx.Done():
			return
		case x := <-w.queue:
			if err := w.post(ctx, x); err != nil && ctx.Err() == nil {
				w.log.Warn("an alert was not sent to the webhook", "alert", x.name, "err", err)
			}
		}
	}
}

func (w *Webhooks) post(ctx context.Context, x webhook) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, x.url, bytes.NewReader(x.body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := w.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, 4096)
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("the receiver answered %s", resp.Status)
	}
	return nil
}
