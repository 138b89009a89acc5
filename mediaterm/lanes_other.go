//go:build !amd64

package mediaterm

func lanesUsable() bool { return false }

func sumLanes(*sumJob, int, *laneWork) { panic("there are no lanes here") }
