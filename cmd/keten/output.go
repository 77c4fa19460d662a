package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/spf13/cobra"
)

const (
	// outputLines is how many lines are asked for at a time.
	outputLines = 1_000
	// outputTail is how long lines are waited for after the end of what is
	// followed: they come on a way of their own.
	outputTail = 2 * time.Second
)

// outputPage is a part of what an attempt said.
type outputPage struct {
	Attempt *struct {
		ID     int64 `json:"id"`
		Number int   `json:"number"`
	} `json:"attempt"`
	Lines     []outputLine `json:"lines"`
	NextAfter string       `json:"next_after"`
	More      bool         `json:"more"`
	Cut       bool         `json:"cut"`
}

type outputLine struct {
	Seq  int64     `json:"seq"`
	At   time.Time `json:"at"`
	Text string    `json:"text"`
}

func newOutput(std stdio) *cobra.Command {
	v := outputView{std: std, c: &client{}, shown: map[string]*shownOutput{}}
	var follow bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "output ID [TASK]",
		Short: "Print the log lines of a collection's tasks, or of one",
		Long: `Print the log lines of a collection's tasks, or of one task, given by its name
or id: those of its last attempt, or of the one that --attempt names. Lines are
there while a task runs, and kept for 45 days.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 && len(args) != 2 {
				return exitWith(exitUsage, errors.New("want the collection's id, and a task's name or id for that task alone"))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := v.check(args); err != nil {
				return err
			}
			ctx := cmd.Context()
			if timeout > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, timeout)
				defer cancel()
			}
			if follow {
				return v.follow(ctx)
			}
			_, err := v.print(ctx)
			return err
		},
	}
	v.c.addFlags(cmd.Flags())
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on until the collection, or the task, has ended")
	cmd.Flags().IntVar(&v.attempt, "attempt", 0, "the number of the attempt; default: the last one; needs TASK")
	cmd.Flags().DurationVar(&timeout, "timeout", 0, "with --follow: at most this long; exit code 5 when it is over")
	return cmd
}

// outputView prints lines as they come.
type outputView struct {
	std     stdio
	c       *client
	id      string
	task    string // name or id; empty: all of them
	attempt int    // number; 0: the last one
	shown   map[string]*shownOutput
}

// shownOutput is what has been printed of a task.
type shownOutput struct {
	attempts int // the task's when they were looked at
	attempt  int // the number of the one that is shown
	after    string
	cut      bool // that was said, too
}

func (v *outputView) check(args []string) error {
	v.id = args[0]
	if len(args) > 1 {
		v.task = args[1]
	}
	switch {
	case v.attempt < 0:
		return exitWith(exitUsage, fmt.Errorf("--attempt: is %d, want 1 or more", v.attempt))
	case v.attempt > 0 && v.task == "":
		return exitWith(exitUsage, errors.New("--attempt: want a task, too: its name or id behind the collection's"))
	}
	return v.c.check()
}

// follow prints what comes until the collection has ended, or the task alone.
func (v *outputView) follow(ctx context.Context) error {
	var over time.Time
	for {
		done, err := v.print(ctx)
		switch {
		case err != nil && ctx.Err() != nil:
			return timedOut(ctx)
		case err != nil:
			return err
		case done && over.IsZero():
			over = time.Now().Add(outputTail)
		case done && time.Now().After(over):
			return nil
		case !done:
			over = time.Time{} // it was retried
		}
		select {
		case <-ctx.Done():
			return timedOut(ctx)
		case <-time.After(followEvery):
		}
	}
}

// print prints what is new, and reports whether nothing more is to come.
func (v *outputView) print(ctx context.Context) (over bool, err error) {
	col, _, err := v.c.collection(ctx, v.id, "")
	if err != nil {
		return false, err
	}
	over, found := ended(col.Status), v.task == ""
	for _, t := range col.Tasks {
		if v.task != "" && v.task != t.Name && v.task != t.ID {
			continue
		}
		found = true
		over = over || v.task != "" && t.Status == "succeeded"
		if t.Attempts == 0 {
			continue
		}
		if err := v.printTask(ctx, t); err != nil {
			return false, err
		}
	}
	if !found {
		return false, exitWith(exitNotFound, fmt.Errorf("collection %s has no task %q", v.id, v.task))
	}
	return over, nil
}

// printTask prints what is new of a task: the rest of the attempt that was shown,
// then the last one.
func (v *outputView) printTask(ctx context.Context, t task) error {
	s := v.shown[t.ID]
	if s == nil {
		s = &shownOutput{}
		v.shown[t.ID] = s
		if v.attempt > 0 {
			id, err := v.attemptID(ctx, t)
			if err != nil {
				return err
			}
			return v.printPages(ctx, t, s, url.Values{"attempt": {strconv.FormatInt(id, 10)}})
		}
	}
	if s.after != "" {
		if err := v.printPages(ctx, t, s, url.Values{}); err != nil || v.attempt > 0 || s.attempts >= t.Attempts {
			return err
		}
		*s = shownOutput{}
	}
	s.attempts = t.Attempts
	return v.printPages(ctx, t, s, url.Values{})
}

// printPages prints what is there of an attempt behind what was shown.
func (v *outputView) printPages(ctx context.Context, t task, s *shownOutput, query url.Values) error {
	query.Set("limit", strconv.Itoa(outputLines))
	for more := true; more; {
		if s.after != "" {
			query.Set("after", s.after)
		}
		var p outputPage
		path := "/v1/collections/" + url.PathEscape(v.id) + "/tasks/" + url.PathEscape(t.ID) + "/output?" + query.Encode()
		if _, err := v.c.call(ctx, http.MethodGet, path, nil, nil, &p); err != nil {
			return err
		}
		if p.Attempt == nil {
			return nil
		}
		s.attempt, s.after, more = p.Attempt.Number, p.NextAfter, p.More
		for _, line := range p.Lines {
			if err := v.printLine(t, s.attempt, line); err != nil {
				return err
			}
		}
		if p.Cut && !s.cut {
			s.cut = true
			fmt.Fprintf(v.std.err, "task %s, attempt %d: what followed was too much and is left out\n", cleanText(t.Name), s.attempt)
		}
	}
	return nil
}

func (v *outputView) printLine(t task, attempt int, line outputLine) error {
	if v.c.output == "json" {
		b, err := json.Marshal(struct {
			Task    string `json:"task"`
			Attempt int    `json:"attempt"`
			outputLine
		}{t.Name, attempt, line})
		if err == nil {
			_, err = fmt.Fprintf(v.std.out, "%s\n", b)
		}
		return err
	}
	prefix := ""
	if v.task == "" {
		prefix = cleanText(t.Name) + " | "
	}
	_, err := fmt.Fprintf(v.std.out, "%s%s\n", prefix, cleanText(line.Text))
	return err
}

// attemptID finds the attempt that --attempt names.
func (v *outputView) attemptID(ctx context.Context, t task) (int64, error) {
	var detail struct {
		AllAttempts []struct {
			ID     int64 `json:"id"`
			Number int   `json:"number"`
		} `json:"all_attempts"`
	}
	path := "/v1/collections/" + url.PathEscape(v.id) + "/tasks/" + url.PathEscape(t.ID)
	if _, err := v.c.call(ctx, http.MethodGet, path, nil, nil, &detail); err != nil {
		return 0, err
	}
	for _, a := range detail.AllAttempts {
		if a.Number == v.attempt {
			return a.ID, nil
		}
	}
	return 0, exitWith(exitNotFound, fmt.Errorf("task %s has no attempt %d", cleanText(t.Name), v.attempt))
}
