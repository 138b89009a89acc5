package main

import (
	"testing"
	"time"
)

func TestMedianOfTimeServers(t *testing.T) {
	for _, c := range []struct {
		in   []time.Duration
		want time.Duration
	}{
		{[]time.Duration{5}, 5}, {[]time.Duration{9, 1}, 5}, {[]time.Duration{time.Hour, 2, 1}, 2}, {[]time.Duration{-time.Hour, 4, 8, 6}, 5},
	} {
		if got := median(c.in); got != c.want {
			t.Errorf("median of %v: %v, wanted %v", c.in, got, c.want)
		}
	}
}
