package simtest

import "fmt"

// A Violation is a broken invariant: which one, and how it was seen.
type Violation struct {
	Invariant string
	Story     string
}

func (v *Violation) Error() string { return v.Invariant + ": " + v.Story }

// violated keeps the first violation; the run ends after the step that met it.
func (w *world) violated(invariant, format string, args ...any) {
	if w.failure == nil {
		w.failure = &Violation{Invariant: invariant, Story: fmt.Sprintf(format, args...)}
	}
}
