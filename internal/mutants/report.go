package main

import (
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
)

// failedTests reads the names of the tests that failed, without their parents.
func failedTests(output string) []string {
	var names []string
	for _, match := range regexp.MustCompile(`(?m)^ *--- FAIL: (\S+)`).FindAllStringSubmatch(output, -1) {
		names = append(names, match[1])
	}
	return slices.DeleteFunc(slices.Clone(names), func(n string) bool {
		return slices.ContainsFunc(names, func(other string) bool { return strings.HasPrefix(other, n+"/") })
	})
}

// failedSeeds reads the first seed that failed, with the invariant it broke.
func failedSeeds(output string) []string {
	match := regexp.MustCompile(`seed (\d+): ([A-Z0-9]+): `).FindStringSubmatch(output)
	if match == nil {
		return nil
	}
	return []string{match[2] + " in seed " + match[1]}
}

// noticed reports whether anything failed.
func (r *result) noticed() bool {
	return slices.ContainsFunc(r.caught, func(names []string) bool { return len(names) > 0 })
}

// weak reports whether nothing but golden vectors has failed.
func (r *result) weak() bool {
	for _, names := range r.caught {
		for _, n := range names {
			if !strings.Contains(n, "Golden") {
				return false
			}
		}
	}
	return r.noticed()
}

// mostNames is how many failed tests a line of the report has.
const mostNames = 2

func short(names []string) string {
	if len(names) > mostNames {
		return strings.Join(names[:mostNames], ", ") + fmt.Sprintf(" and %d more", len(names)-mostNames)
	}
	return strings.Join(names, ", ")
}

func (r *result) column(i int) string {
	switch {
	case i >= len(r.ran) || !r.ran[i]:
		return "–"
	case len(r.caught[i]) == 0:
		return "no"
	}
	return short(r.caught[i])
}

// verdict is the result in a line.
func (r *result) verdict() string {
	switch {
	case r.err != nil:
		return "error: " + r.err.Error()
	case !r.noticed() && r.equivalent != "":
		return "survives, as it must"
	case !r.noticed():
		return "SURVIVES"
	}
	return r.column(0) + " | " + r.column(1)
}

type report struct {
	results []result
	whole   bool // all mutants were run
}

// score is how many were noticed, and its share in percent.
func (r *report) score() (noticed int, percent float64) {
	for i := range r.results {
		if r.results[i].noticed() {
			noticed++
		}
	}
	return noticed, 100 * float64(noticed) / float64(len(r.results))
}

// faults are the sentences for which the gate fails.
func (r *report) faults() []string {
	var list []string
	for i := range r.results {
		switch m := &r.results[i]; {
		case m.err != nil:
			list = append(list, m.name+": "+m.err.Error())
		case !m.noticed() && m.equivalent == "":
			list = append(list, m.name+": survives, and nothing says why. It breaks: "+m.breaks)
		case m.noticed() && m.equivalent != "":
			list = append(list, m.name+": is said to change nothing, and is noticed")
		}
	}
	if _, percent := r.score(); r.whole && percent < leastScore {
		list = append(list, fmt.Sprintf("%.1f %% are noticed, at least %d %% must be", percent, leastScore))
	}
	return list
}

func (r *report) print(w io.Writer) {
	say := func(format string, args ...any) { _, _ = fmt.Fprintf(w, format, args...) }
	say("%-32s %-70s %s\n", "mutant", "directed tests of the ledger", "simulator")
	for i := range r.results {
		m := &r.results[i]
		if m.err != nil {
			say("%-32s error\n", m.name)
			continue
		}
		say("%-32s %-70s %s\n", m.name, m.column(0), m.column(1))
	}
	r.printGroup(say, "\nnoticed only by golden vectors:", (*result).weak, func(m *result) string { return m.breaks })
	r.printGroup(say, "\nnoticed by no directed test:", func(m *result) bool {
		return m.noticed() && m.ran[0] && len(m.caught[0]) == 0
	}, func(m *result) string { return m.column(1) })
	r.printGroup(say, "\nsurvivors:", func(m *result) bool { return m.err == nil && !m.noticed() }, func(m *result) string { return m.equivalent })
	noticed, percent := r.score()
	say("\n%d of %d mutants noticed: %.1f %%\n", noticed, len(r.results), percent)
	for _, f := range r.faults() {
		say("FAIL %s\n", f)
	}
	say("a mutant again, with what the tests say: make mutants ARGS=\"-v -run '^name$'\"\n")
}

func (r *report) printGroup(say func(string, ...any), title string, in func(*result) bool, text func(*result) string) {
	first := true
	for i := range r.results {
		if m := &r.results[i]; in(m) {
			if first {
				say("%s\n", title)
				first = false
			}
			say("  %-32s %s\n", m.name, text(m))
		}
	}
}
