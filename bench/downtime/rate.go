package downtime

import (
	"sort"
	"time"

	"github.com/vzkit/vzkit/bench/hog"
)

// doneAt is how many writes were done at that time: between two samples they
// go on evenly, outside of all samples not at all.
func doneAt(samples []hog.Sample, at time.Duration) float64 {
	i := sort.Search(len(samples), func(i int) bool { return samples[i].At >= at })
	switch {
	case len(samples) == 0:
		return 0
	case i == len(samples):
		return float64(samples[i-1].Done)
	case i == 0 || samples[i].At == at:
		return float64(samples[i].Done)
	}
	a, b := samples[i-1], samples[i]
	return float64(a.Done) + float64(b.Done-a.Done)*float64(at-a.At)/float64(b.At-a.At)
}

// rate is how many a second there were; 0 for no time.
func rate(from, to float64, time time.Duration) float64 {
	if time <= 0 {
		return 0
	}
	return (to - from) / time.Seconds()
}
