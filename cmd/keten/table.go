package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
)

// cleanText makes text from elsewhere safe for a terminal: one line, without
// control and direction-changing characters.
func cleanText(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case unicode.IsControl(r), unicode.Is(unicode.Bidi_Control, r), unicode.Is(unicode.Cf, r):
			return -1
		}
		return r
	}, s)
}

// short cuts text to n characters.
func short(s string, n int) string {
	r := []rune(cleanText(s))
	if len(r) <= n {
		return string(r)
	}
	return string(r[:n-1]) + "…"
}

func newTable(w io.Writer, head ...string) *tabwriter.Writer {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(t, strings.Join(head, "\t"))
	return t
}

func row(t io.Writer, cells ...string) {
	fmt.Fprintln(t, strings.Join(cells, "\t"))
}

func age(at time.Time) string {
	if at.IsZero() {
		return "now" // not recorded yet
	}
	d := time.Since(at)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

// step says where a collection is: 3/5 prove 40 %.
func (c *collection) step() string {
	done, count, name, percent := c.TasksDone, c.TaskCount, "", ""
	if c.Current != nil {
		name = c.Current.Name
	}
	if len(c.Tasks) > 0 {
		done, count, name = 0, len(c.Tasks), ""
		for _, t := range c.Tasks {
			if t.Status == "succeeded" {
				done++
			} else if name == "" {
				name = t.Name
				if t.Progress != nil {
					percent = fmt.Sprintf(" %d %%", t.Progress.Percent)
				}
			}
		}
	}
	if c.Status == "succeeded" || name == "" {
		return fmt.Sprintf("%d/%d", done, count)
	}
	return fmt.Sprintf("%d/%d %s%s", done+1, count, cleanText(name), percent)
}

// problem is the error of the task that failed, in one line.
func (c *collection) problem() string {
	if c.Error != nil {
		return c.Error.Message
	}
	for _, t := range c.Tasks {
		if t.Status == "failed" && t.Error != nil {
			return t.Error.Message
		}
	}
	return ""
}

func printList(w io.Writer, cols []collection) {
	t := newTable(w, "ID", "NAME", "STATUS", "RUN", "STEP", "AGE", "ERROR")
	for _, c := range cols {
		row(t, c.ID, short(c.Name, 40), c.Status, strconv.Itoa(c.Run), c.step(), age(c.CreatedAt), short(c.problem(), 60))
	}
	_ = t.Flush() // a terminal that is gone has nobody to tell
}

func printCollection(w io.Writer, c collection) {
	fmt.Fprintf(w, "Collection  %s\nName        %s\nStatus      %s (run %d)\n", c.ID, cleanText(c.Name), c.Status, c.Run)
	if !c.CreatedAt.IsZero() {
		fmt.Fprintf(w, "Created     %s (%s ago)\n", c.CreatedAt.Local().Format(time.RFC3339), age(c.CreatedAt))
	}
	if c.Retryable {
		fmt.Fprintf(w, "Retry       keten retry %s\n", c.ID)
	}
	fmt.Fprintln(w)
	t := newTable(w, "#", "TASK", "STATUS", "ATTEMPTS", "TOOK", "ID", "MESSAGE")
	for _, k := range c.Tasks {
		message := k.Message
		if k.Error != nil {
			message = k.Error.Code + ": " + k.Error.Message
		}
		if k.Progress != nil {
			message = k.Progress.text()
		}
		took := ""
		if k.DurationMS != nil {
			took = (time.Duration(*k.DurationMS) * time.Millisecond).String()
		}
		row(t, strconv.Itoa(k.Index+1), short(k.Name, 30), k.Status, strconv.Itoa(k.Attempts), took, k.ID, short(message, 200))
	}
	_ = t.Flush() // a terminal that is gone has nobody to tell
}
