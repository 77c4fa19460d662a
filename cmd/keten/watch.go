package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// waitFlags are the flags of commands that can wait for a collection's end.
type waitFlags struct {
	wait    bool
	timeout time.Duration
}

func (w *waitFlags) addFlags(f *pflag.FlagSet) {
	f.BoolVarP(&w.wait, "wait", "w", false, "wait until the collection has ended; exit code 3 when it did not succeed")
	f.DurationVar(&w.timeout, "timeout", 0, "with --wait: at most this long; exit code 5 when it is over")
}

// finish prints a collection that was just changed, and its end with --wait.
func (w *waitFlags) finish(ctx context.Context, std stdio, c *client, col collection, raw []byte) error {
	if !w.wait {
		return printOne(std, c, col, raw)
	}
	cols, err := follow(ctx, std, c, []string{col.ID}, w.timeout)
	if err != nil {
		return err
	}
	return outcome(cols...)
}

func printOne(std stdio, c *client, col collection, raw []byte) error {
	if c.output == "json" {
		_, err := fmt.Fprintf(std.out, "%s\n", raw)
		return err
	}
	printCollection(std.out, col)
	return nil
}

func newWatch(std stdio) *cobra.Command {
	var c client
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "watch ID…",
		Short: "Follow collections until they have ended",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return exitWith(exitUsage, errors.New("want the id of at least one collection"))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, ids []string) error {
			if err := c.check(); err != nil {
				return err
			}
			cols, err := follow(cmd.Context(), std, &c, ids, timeout)
			if err != nil {
				return err
			}
			return outcome(cols...)
		},
	}
	c.addFlags(cmd.Flags())
	cmd.Flags().DurationVar(&timeout, "timeout", 0, "follow at most this long; exit code 5 when it is over")
	return cmd
}

// follow shows collections live: on a terminal one table that is drawn again,
// elsewhere a line for every change of a task.
func follow(ctx context.Context, std stdio, c *client, ids []string, timeout time.Duration) ([]collection, error) {
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	v := newLiveView(std, c.output)
	cols, err := c.follow(ctx, ids, followEvery, v.show)
	if err != nil {
		return cols, err
	}
	if c.output == "table" && len(cols) == 1 && !v.tty {
		printCollection(std.out, cols[0])
	}
	return cols, nil
}

// liveView shows collections while they change.
type liveView struct {
	std    stdio
	tty    bool
	output string
	lines  int // drawn last time, to be drawn over
	seen   map[string]string
}

func newLiveView(std stdio, output string) *liveView {
	f, ok := std.out.(*os.File)
	tty := false
	if ok {
		info, err := f.Stat()
		tty = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	return &liveView{std: std, tty: tty && output == "table", output: output, seen: map[string]string{}}
}

func (v *liveView) show(cols []collection) {
	switch {
	case v.tty:
		v.draw(cols)
	case v.output == "json":
		v.changes(cols, func(c collection, t task) {
			percent := ""
			if t.Progress != nil {
				percent = fmt.Sprintf(`,"percent":%d`, t.Progress.Percent)
			}
			fmt.Fprintf(v.std.out, `{"collection_id":%q,"run":%d,"task_id":%q,"task":%q,"status":%q,"attempts":%d%s}`+"\n", c.ID, c.Run, t.ID, t.Name, t.Status, t.Attempts, percent)
		})
	default:
		v.changes(cols, func(c collection, t task) {
			text := t.Message
			if t.Error != nil {
				text = t.Error.Message
			}
			if t.Progress != nil {
				text = t.Progress.text()
			}
			fmt.Fprintf(v.std.out, "%s  %-28s run %d  %d/%d %-10s %-10s %s\n", time.Now().Format("15:04:05.000"),
				short(c.Name, 28), c.Run, t.Index+1, len(c.Tasks), short(t.Name, 10), t.Status, short(text, 120))
		})
	}
}

// changes calls say for every task that looks different from last time.
func (v *liveView) changes(cols []collection, say func(collection, task)) {
	for _, c := range cols {
		for _, t := range c.Tasks {
			now := fmt.Sprint(t.Status, t.Attempts, t.Progress.text())
			if t.Attempts > 0 && v.seen[t.ID] != now {
				say(c, t)
			}
			v.seen[t.ID] = now
		}
	}
}

// draw draws the table over the last one.
func (v *liveView) draw(cols []collection) {
	var buf countingBuffer
	printList(&buf, cols)
	if v.lines > 0 {
		fmt.Fprintf(v.std.out, "\x1b[%dA\x1b[J", v.lines)
	}
	fmt.Fprint(v.std.out, buf.String())
	v.lines = buf.lines()
}
