package main

import "testing"

func TestSystemThatGRUBHasStarted(t *testing.T) {
	for cmdline, want := range map[string]int{
		"BOOT_IMAGE=/EFI/Linux/KERNEL-a console=tty0": 0, "BOOT_IMAGE=(hd0,gpt2)/EFI/Linux/KERNEL-B quiet\n": 1, "quiet": -1, "": -1,
		"BOOT_IMAGE=/EFI/Linux/KERNEL-C": -1, "BOOT_IMAGE=": -1, "x=/EFI/Linux/KERNEL-A": -1,
	} {
		if got, err := kernelOf(cmdline); err == nil && got != want || err != nil && want >= 0 {
			t.Errorf("%q: system %d, %v, must be %d", cmdline, got, err, want)
		}
	}
}
