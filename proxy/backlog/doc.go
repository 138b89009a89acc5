// Package backlog keeps lines that wait to be written where a crash of the process does not reach them: in a file that is mapped into memory and shared
// with the kernel (mmap(2), MAP_SHARED). To put a line there is a copy and a sum, no system call; the pages are the kernel's, and stay when the process is
// killed or dies of a fatal error. A power cut may lose what the kernel had not brought to the disk.
//
// Data in: whole lines. Data out: the same lines in batches, to whoever writes them where they belong; after a crash, what the batches held. A batch is
// published by one store of its length and sum, so that a process that dies within Append leaves the lines before it. Another store notes how much of it is
// written and at which offset of what file the rest goes, before it does: the next start can look there how much of it came about, and write what did not.
//
// The file is held so that nothing takes its pages away, which the kernel answers by SIGBUS: its directory and itself are open to the own user alone (modes
// 0700 and 0600), its blocks are allocated before it is used (fallocate(2)), so that a full disk does not matter, and it is locked (flock(2)) against a
// second daemon. Where somebody shortens it nevertheless, the lines that waited are lost, the fault is told, and those that follow wait in memory. So do all
// where the file cannot be had.
//
// Limits: as many batches of as many bytes as Open is asked for, and at most maxBatches of maxSize.
package backlog
