package main

import (
	"encoding/binary"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

// ask passes a request on; one is enough.
func ask(requests chan<- string, what string) {
	select {
	case requests <- what:
	default:
	}
}

// signals are those of Ctrl-Alt-Del (the kernel's to its first process) and of programs that know a first process.
func (m *machine) signals() {
	got := make(chan os.Signal, 4)
	signal.Notify(got, syscall.SIGINT, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2)
	for s := range got {
		if s == syscall.SIGUSR2 {
			ask(m.requests, "shutdown")
		} else {
			ask(m.requests, "restart")
		}
	}
}

// powerButton hears the button of the machine, which is what a host presses to shut a virtual machine down.
func powerButton(requests chan<- string) {
	files, _ := filepath.Glob("/dev/input/event*")
	for _, f := range files {
		go func() {
			d, err := os.Open(f)
			if err != nil {
				return
			}
			defer d.Close()
			// struct input_event: two longs of time, type, code, value.
			for b := make([]byte, 24); ; {
				if _, err := io.ReadFull(d, b); err != nil {
					return
				}
				const key, power = 1, 116
				if binary.NativeEndian.Uint16(b[16:]) == key && binary.NativeEndian.Uint16(b[18:]) == power && binary.NativeEndian.Uint32(b[20:]) == 1 {
					ask(requests, "shutdown")
				}
			}
		}()
	}
}
