package simtest

import "fmt"

// A ViolationError is a broken invariant: which one, and how it was seen.
type ViolationError struct {
	Invariant string
	Story     string
}

func (v *ViolationError) Error() string { return v.Invariant + ": " + v.Story }

// violated keeps the first violation; the run ends after the step that met it.
func (w *world) violated(invariant, format string, args ...any) {
	if w.failure == nil {
		w.failure = &ViolationError{Invariant: invariant, Story: fmt.Sprintf(format, args...)}
	}
}
