package testbed

import (
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// Console is the T of a program that is no test: it tells its story on
// standard output. Make it with NewConsole.
type Console struct {
	name  string
	start time.Time

	mu       sync.Mutex // guards everything that follows
	failed   bool
	cleanups []func()
	cleaning bool
}

// NewConsole makes a T of the given name that cleans up when the user
// interrupts the program.
func NewConsole(name string) *Console {
	c := &Console{name: name, start: time.Now()}
	go c.onInterrupt()
	return c
}

// Do runs f on a goroutine of its own, so that Fatalf can end it, then cleans
// up.
func (c *Console) Do(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	<-done
	c.clean()
}

// clean runs what was left to do, last first, once.
func (c *Console) clean() {
	c.mu.Lock()
	if c.cleaning {
		c.mu.Unlock()
		return
	}
	c.cleaning = true
	todo := c.cleanups
	c.mu.Unlock()
	for i := len(todo) - 1; i >= 0; i-- {
		todo[i]()
	}
}

// onInterrupt cleans up when the user has seen enough.
func (c *Console) onInterrupt() {
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, syscall.SIGINT, syscall.SIGTERM)
	<-ch
	fmt.Fprintln(os.Stderr, c.name+": interrupted, cleaning up")
	c.clean()
	os.Exit(130)
}

// Helper is part of T and does nothing here.
func (c *Console) Helper() {}

// Name is the program's.
func (c *Console) Name() string { return c.name }

// Logf prints a line with the time since the start.
func (c *Console) Logf(format string, args ...any) {
	fmt.Printf("%6.1f s  %s\n", time.Since(c.start).Seconds(), fmt.Sprintf(format, args...))
}

// Errorf prints a line and marks the run as failed.
func (c *Console) Errorf(format string, args ...any) {
	c.mu.Lock()
	c.failed = true
	c.mu.Unlock()
	c.Logf("ERROR: "+format, args...)
}

// Fatalf is Errorf that ends the function given to Do.
func (c *Console) Fatalf(format string, args ...any) {
	c.Errorf(format, args...)
	runtime.Goexit()
}

// Cleanup registers what is to be done after Do, last first.
func (c *Console) Cleanup(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cleanups = append(c.cleanups, f)
}

// Failed reports whether Errorf or Fatalf was called.
func (c *Console) Failed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failed
}
