package vap

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"

	"imeproxy/ucime/learn"
)

// BenchmarkUploadVCR uploads 100 records at a time over loopback TCP to a handler that stores nothing; an operation is a record.
func BenchmarkUploadVCR(b *testing.B) {
	s := NewServer(ServerConfig{Handler: nowhere{}, Quota: 5000})
	defer s.Close()
	if err := s.Apply([]Instance{instance()}); err != nil {
		b.Fatal(err)
	}
	c, err := NewClient(ClientConfig{Addr: s.Addr("vapserver1").String(), Username: "vapuser", Password: password, Name: "n"})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = c.Run(ctx) }()
	defer func() { cancel(); <-done }()
	if err := c.SetServices([]Offer{offerA("+1408902XXX")}); err != nil {
		b.Fatal(err)
	}
	vcrs := make([]learn.VCR, MaxVCRs)
	for i := range vcrs {
		vcrs[i] = theVCR
	}
	if err := c.Upload(ctx, serviceA, vcrs); err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	for left := b.N; left > 0; left -= MaxVCRs {
		if err := c.Upload(ctx, serviceA, vcrs[:min(left, MaxVCRs)]); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkPublish publishes 64,000 patterns (128 pages) and counts their unique numbers; an operation is all of them.
func BenchmarkPublish(b *testing.B) {
	s := NewServer(ServerConfig{Handler: nowhere{}, Quota: 1 << 31})
	defer s.Close()
	if err := s.Apply([]Instance{instance()}); err != nil {
		b.Fatal(err)
	}
	o := offerA()
	o.Service.MaxDIDs = 1 << 31
	for i := range MaxPages * PageSize {
		o.Patterns = append(o.Patterns, Pattern(fmt.Sprintf("+1408%05dXX", 2*(i%49999)+i/49999)))
	}
	for i := range b.N {
		c, err := NewClient(ClientConfig{Addr: s.Addr("vapserver1").String(), Username: "vapuser", Password: password, Name: "n"})
		if err != nil {
			b.Fatal(err)
		}
		done := make(chan struct{})
		go func() { defer close(done); _ = c.Run(b.Context()) }()
		if err := c.SetServices([]Offer{o}); err != nil {
			b.Fatal(err)
		}
		if _, err := c.wait(b.Context(), func() bool { return c.services[serviceA].Complete }); err != nil {
			b.Fatal(err)
		}
		if err := c.Unregister(b.Context()); err != nil && !errors.Is(err, net.ErrClosed) {
			b.Fatal(i, err)
		}
		<-done
	}
}

// nowhere is a handler that stores nothing.
type nowhere struct{}

func (nowhere) Published(context.Context, Publication) error                      { return nil }
func (nowhere) Unpublished(context.Context, Key)                                  {}
func (nowhere) StoreVCRs(context.Context, Key, []learn.VCR) error                 { return nil }
func (nowhere) Settle(context.Context, Key, uint64, bool) error                   { return nil }
func (nowhere) Pending(context.Context, Key, uint64, int) ([]Notification, error) { return nil, nil }
