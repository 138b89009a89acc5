// Command mute stands in the place of imeproxy in a system that must not stay: it runs and never says that it is ready.
package main

import "time"

func main() {
	for {
		time.Sleep(time.Hour)
	}
}
