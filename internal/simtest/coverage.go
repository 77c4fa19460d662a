package simtest

import (
	"cmp"
	"fmt"
	"io"
	"slices"
)

// A Sight is one situation that a simulation can meet.
type Sight struct{ Group, Name string }

// Coverage is how often each was met.
type Coverage map[Sight]int

func (w *world) saw(group, name string) { w.coverage[Sight{group, name}]++ }

// Add takes another run's coverage in.
func (c Coverage) Add(other Coverage) {
	for s, n := range other {
		c[s] += n
	}
}

// Print writes the coverage as a table.
func (c Coverage) Print(to io.Writer) {
	list := make([]Sight, 0, len(c))
	for s := range c {
		list = append(list, s)
	}
	slices.SortFunc(list, compareSights)
	for _, s := range list {
		fmt.Fprintf(to, "%12d  %s: %s\n", c[s], s.Group, s.Name)
	}
}

func compareSights(a, b Sight) int {
	return cmp.Or(cmp.Compare(a.Group, b.Group), cmp.Compare(a.Name, b.Name))
}

// Missing returns what every large campaign must meet and this one has not.
func (c Coverage) Missing() []Sight {
	var missing []Sight
	for _, s := range expected() {
		if c[s] == 0 {
			missing = append(missing, s)
		}
	}
	slices.SortFunc(missing, compareSights)
	return missing
}
