package mediaterm

import "golang.org/x/sys/cpu"

// lanesUsable tells whether sumLanes can run here: the processor has the instructions, and the system keeps their registers.
func lanesUsable() bool {
	return cpu.X86.HasAVX512F && cpu.X86.HasAVX512BW && cpu.X86.HasBMI2
}

// sumLanes makes the sums of n jobs that lie one after the other, 1 to laneCount, side by side.
//
//go:noescape
func sumLanes(jobs *sumJob, n int, work *laneWork)
