// Command init is the first process of the appliance, the only program of its memory-held root file system beside imeproxy and
// e2fsck. It mounts what the kernel offers, loads the drivers that the machine's devices ask for, checks and grows the state
// partition, starts `imeproxy run` with limits and two capabilities, watches and restarts it, gives the configuration shell on the
// consoles, collects ended processes, and stops or restarts the machine in order.
//
// At a console passwords can be reset within ten seconds of a start, with the networks closed ("recover").
//
// It runs one service. There is no shell, no package manager, no remote access of its own: SSH is imeproxy's.
//
// Called as "service" it drops privileges and becomes the program that follows.
package main
