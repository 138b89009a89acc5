package shell

import (
	"bytes"
	"io"
	"sync"
)

const (
	ctrlC = 3
	ctrlR = 18
	ctrlU = 21 // the line editor: forget the line
	ctrlZ = 26
)

// maxTyped bounds what is typed ahead in bytes; beyond it the terminal waits.
const maxTyped = 64 << 10

// keyboard gives what is typed. It is read ahead, so that Ctrl-C is seen while a command runs.
type keyboard struct {
	mu      sync.Mutex
	changed sync.Cond
	held    []byte // typed and not yet taken
	err     error  // no key will come any more: the terminal is gone
	cut     bool   // and the line editor has been told so
	over    bool   // nobody takes keys any more
	stop    func() // interrupts the command that runs; nil: none runs
	stopped bool   // it was interrupted, by a Ctrl-C that stands in held
	ready   []byte // for the line editor, in its own keys
	forgot  bool   // a Ctrl-C is among them
}

func newKeyboard(r io.Reader) *keyboard {
	k := new(keyboard)
	k.changed.L = &k.mu
	go k.pump(r)
	return k
}

// pump reads until the terminal is gone; one that still waits when the shell ends goes with the process.
func (k *keyboard) pump(r io.Reader) {
	b := make([]byte, 4096)
	for {
		n, err := r.Read(b)
		k.mu.Lock()
		for len(k.held)+n > maxTyped && !k.over {
			k.changed.Wait()
		}
		for _, key := range b[:n] {
			if key == ctrlC && k.stop != nil {
				k.held, k.stopped = k.held[:0], true // what was typed ahead was meant for what follows an undisturbed end
				k.stop()
			}
			k.held = append(k.held, key)
		}
		if k.err = err; err != nil && k.stop != nil {
			k.stop()
		}
		k.changed.Broadcast()
		over := k.over || err != nil
		k.mu.Unlock()
		if over {
			return
		}
	}
}

// close says that nobody takes keys any more.
func (k *keyboard) close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.over = true
	k.changed.Broadcast()
}

// gone says whether the line editor was told that the terminal is gone.
func (k *keyboard) gone() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.cut
}

// begin says that a command runs, which Ctrl-C interrupts.
func (k *keyboard) begin(stop func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.stop, k.stopped = stop, false
	if i := bytes.IndexByte(k.held, ctrlC); i >= 0 { // it was pressed behind the line before the line had begun to act
		k.held, k.stopped = k.held[i:], true
	}
	if k.stopped || k.err != nil {
		stop()
	}
}

// end says that the command has ended. A Ctrl-C that was meant for it is forgotten.
func (k *keyboard) end() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.stopped && len(k.held) > 0 && k.held[0] == ctrlC {
		k.held = k.held[1:]
	}
	k.stop, k.stopped = nil, false
}

// forgotten says whether Ctrl-C ended the line that the line editor gave last.
func (k *keyboard) forgotten() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	was := k.forgot
	k.forgot = false
	return was
}

// wait returns when a key is there, or an error when none will come.
func (k *keyboard) wait() error {
	for len(k.held) == 0 {
		if k.err != nil {
			return k.err
		}
		k.changed.Wait()
	}
	return nil
}

// key gives one key as it was pressed, for the pager.
func (k *keyboard) key() (byte, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.wait(); err != nil {
		return 0, err
	}
	b := k.held[0]
	k.held = k.held[1:]
	k.changed.Broadcast()
	return b, nil
}

// Read gives keys to the line editor, those of an ASA that it does not know written in those that it knows. It gives no more than a line, so that what was
// typed behind it is still here when the line acts.
func (k *keyboard) Read(p []byte) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.ready) == 0 {
		if err := k.wait(); err != nil {
			k.cut = true
			return 0, err
		}
		n := len(k.held)
		if i := bytes.IndexByte(k.held, '\r'); i >= 0 {
			n = i + 1
		}
		for _, key := range k.held[:n] {
			switch key {
			case ctrlC:
				k.ready, k.forgot = append(k.ready, ctrlU, '\r'), true
			case ctrlZ:
				k.ready = append(append(k.ready, ctrlU), "end\r"...)
			default:
				k.ready = append(k.ready, key)
			}
		}
		k.held = k.held[n:]
		k.changed.Broadcast()
	}
	n := copy(p, k.ready)
	k.ready = k.ready[n:]
	return n, nil
}
