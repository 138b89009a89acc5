// Package boot makes the two files that a machine starts from: an initramfs (cpio, format newc of the kernel's
// Documentation/driver-api/early-userspace/buffer-format.rst) with what the kernel modules in it need of each other, and a unified
// kernel image (UAPI group's UKI specification: a PE file made of systemd's EFI stub and sections with kernel, initramfs and
// command line). The same inputs give the same bytes.
package boot
