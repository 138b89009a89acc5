package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

// children collects every process that ends: the first process inherits those whose parent is gone.
type children struct {
	mu      sync.Mutex
	waiting map[int]chan syscall.WaitStatus // guarded by mu, which is held from before a start until its entry is here

	ended chan os.Signal
	done  chan struct{} // closed when nothing is collected any more
}

func newChildren() *children {
	c := &children{waiting: map[int]chan syscall.WaitStatus{}, ended: make(chan os.Signal, 1), done: make(chan struct{})}
	signal.Notify(c.ended, syscall.SIGCHLD)
	go func() {
		defer close(c.done)
		for range c.ended {
			c.collect()
		}
	}()
	return c
}

// close ends the collecting: from then on processes belong to who started them, as everywhere but in a first process.
func (c *children) close() {
	signal.Stop(c.ended)
	close(c.ended)
	<-c.done
}

func (c *children) collect() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		if done, ok := c.waiting[pid]; ok {
			done <- status
			delete(c.waiting, pid)
		}
	}
}

// start starts a program; done gets its end. name is what it sees as its own name.
func (c *children) start(path string, argv []string, attr *os.ProcAttr) (pid int, done <-chan syscall.WaitStatus, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p, err := os.StartProcess(path, argv, attr)
	if err != nil {
		return 0, nil, err
	}
	end := make(chan syscall.WaitStatus, 1)
	pid = p.Pid
	c.waiting[pid] = end
	_ = p.Release()
	return pid, end, nil
}

// runFor runs a program with its output in out, and ends it when it takes too long. As "service" it runs without privileges.
func (c *children) runFor(limit time.Duration, out io.Writer, argv ...string) (code int, err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer r.Close()
	path := argv[0]
	if path == "service" {
		path = "/init"
	}
	pid, done, err := c.start(path, argv, &os.ProcAttr{Env: []string{}, Files: []*os.File{nil, w, w}})
	_ = w.Close()
	if err != nil {
		return 0, err
	}
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		_, _ = io.Copy(out, io.LimitReader(r, 64<<10))
		_, _ = io.Copy(io.Discard, r)
	}()
	timeout := time.NewTimer(limit)
	defer timeout.Stop()
	select {
	case status := <-done:
		<-copied
		if !status.Exited() {
			return 0, fmt.Errorf("%s: %v", argv[0], status.Signal())
		}
		return status.ExitStatus(), nil
	case <-timeout.C:
		_ = syscall.Kill(pid, syscall.SIGKILL)
		return 0, fmt.Errorf("%s: no end within %v", argv[0], limit)
	}
}

// waitAll waits until no child is left, so long at most.
func (c *children) waitAll(limit time.Duration) {
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		c.mu.Lock()
		n := len(c.waiting)
		c.mu.Unlock()
		if n == 0 {
			return
		}
	}
}
