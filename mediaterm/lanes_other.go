//go:build !amd64

package mediaterm

func usableLanes() int { return 0 }

func sumLanes16(*sumJob, int, *laneWork) { panic("there are no lanes here") }

func sumLanes8(*sumJob, int, *laneWork) { panic("there are no lanes here") }
