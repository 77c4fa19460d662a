package projector

import (
	"math"
	"time"
)

const (
	// paceWindow is how far back the rate of records looks.
	paceWindow = 100 * time.Millisecond
	// pacePerRecord is how much longer the least interval between two
	// transactions gets with each record per second: 2 ms per thousand.
	pacePerRecord = 2 * time.Microsecond
	// paceMax bounds what this adds to how late a row is.
	paceMax = 20 * time.Millisecond
)

// pace spaces out transactions under load. One that is written the moment it
// can be is as small as can be, and the fixed cost of many small ones would eat
// what the rest of the machine needs; when little happens they are written at
// once.
type pace struct {
	rate float64 // records per second, smoothed
	last time.Time
}

// wrote takes in a transaction of n records that began now.
func (p *pace) wrote(n int, now time.Time) {
	elapsed := max(now.Sub(p.last), time.Microsecond)
	weight := 1 - math.Exp(-float64(elapsed)/float64(paceWindow))
	p.rate += weight * (float64(n)/elapsed.Seconds() - p.rate)
	p.last = now
}

// wait returns how long the next transaction should wait, 0 or less for not at
// all.
func (p *pace) wait(now time.Time) time.Duration {
	least := min(time.Duration(p.rate)*pacePerRecord, paceMax)
	return p.last.Add(least).Sub(now)
}
