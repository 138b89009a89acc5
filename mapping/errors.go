package mapping

import "errors"

var (
	// ErrCapability says that the process may not change the kernel's network state.
	ErrCapability = errors.New("CAP_NET_ADMIN is missing (run as root, or give the service AmbientCapabilities=CAP_NET_ADMIN CAP_NET_RAW)")
	// ErrRawCapability says that the process may not send ARP packets.
	ErrRawCapability = errors.New("CAP_NET_RAW is missing (run as root, or give the service AmbientCapabilities=CAP_NET_ADMIN CAP_NET_RAW)")
	// ErrKernelFeature says that the kernel lacks something that the rules need; the text names it.
	ErrKernelFeature = errors.New("the kernel lacks")
	// ErrRunning says that another appliance holds the state directory, or the network namespace.
	ErrRunning = errors.New("another imeproxy runs already")
	// ErrRemoved is returned by Update after Remove.
	ErrRemoved = errors.New("kernel state was removed")
)
