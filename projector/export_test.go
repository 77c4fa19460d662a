package projector

// Pace is pace for its test.
type Pace = pace

// The methods of pace for its test.
var (
	PaceWrote = (*pace).wrote
	PaceWait  = (*pace).wait
)
