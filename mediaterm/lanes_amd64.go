package mediaterm

import "golang.org/x/sys/cpu"

// usableLanes tells how many lanes can be had here: the processor has the instructions, and the system keeps their registers. 0: none.
func usableLanes() int {
	switch {
	case cpu.X86.HasAVX512F && cpu.X86.HasAVX512BW && cpu.X86.HasBMI2:
		return maxLanes
	case cpu.X86.HasAVX2:
		return 8
	}
	return 0
}

// sumLanes16 makes the sums of n jobs that lie one after the other, 1 to 16, side by side.
//
//go:noescape
func sumLanes16(jobs *sumJob, n int, work *laneWork)

// sumLanes8 is sumLanes16 for 1 to 8 jobs, the tails of which work has already.
//
//go:noescape
func sumLanes8(jobs *sumJob, n int, work *laneWork)
