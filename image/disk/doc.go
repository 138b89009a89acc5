// Package disk writes and reads the appliance's disk: a GPT with three partitions: "imeproxy-bios" with the loader for a BIOS,
// "imeproxy-esp" with the one for UEFI, the settings of both and the two systems A and B, and "imeproxy-state", an ext4 file system with everything that is kept, which is last and grows with the disk.
//
// The ESP is a FAT32 that is never mounted: each system has a region of its own there, contiguous and of fixed size (SlotSize), and
// the folder entries of both stand in one sector. To replace a system is to write the region of the one that does not run, and then
// that sector: a power cut in between leaves the entry as it was. FAT and folders are written by nobody else; GRUB writes into a
// file of its own.
//
// Sources: UEFI 2.10 sections 5.3 (GPT) and 13.3 (file systems), Microsoft's FAT specification (fatgen103).
package disk
