package main

import (
	"bytes"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
)

// countingBuffer is text whose lines can be drawn over.
type countingBuffer struct{ bytes.Buffer }

func (b *countingBuffer) lines() int { return bytes.Count(b.Bytes(), []byte("\n")) }

func newShow(std stdio) *cobra.Command {
	var c client
	cmd := &cobra.Command{
		Use:   "show ID",
		Short: "Show one collection with its tasks",
		Args:  oneArg("the collection's id"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := c.check(); err != nil {
				return err
			}
			col, raw, err := c.collection(cmd.Context(), args[0], "")
			if err != nil {
				return err
			}
			return printOne(std, &c, col, raw)
		},
	}
	c.addFlags(cmd.Flags())
	return cmd
}

func newRetry(std stdio) *cobra.Command {
	var (
		c      client
		run    int
		reason string
		wait   waitFlags
	)
	cmd := &cobra.Command{
		Use:   "retry ID",
		Short: "Run again what did not succeed of a collection",
		Long: `Run again what did not succeed of a failed or canceled collection, with the
same task ids. Results already obtained are kept and passed on.`,
		Args: oneArg("the collection's id"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := c.check(); err != nil {
				return err
			}
			if run == 0 { // retry the run that is shown now, not one that starts meanwhile
				col, _, err := c.collection(cmd.Context(), args[0], "")
				if err != nil {
					return err
				}
				run = col.Run
			}
			col, raw, err := c.retry(cmd.Context(), args[0], run, reason)
			if err != nil {
				return err
			}
			return wait.finish(cmd.Context(), std, &c, col, raw)
		},
	}
	c.addFlags(cmd.Flags())
	wait.addFlags(cmd.Flags())
	cmd.Flags().IntVar(&run, "run", 0, "the run to retry; default: the current one")
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the history")
	return cmd
}

func newList(std stdio) *cobra.Command {
	var (
		c            client
		status       []string
		name, cursor string
		limit        int
	)
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List collections, newest first",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := c.check(); err != nil {
				return err
			}
			q := url.Values{}
			for _, s := range status {
				q.Add("status", s)
			}
			for k, v := range map[string]string{"name": name, "cursor": cursor, "limit": strconv.Itoa(limit)} {
				if v != "" {
					q.Set(k, v)
				}
			}
			var p page
			raw, err := c.call(cmd.Context(), http.MethodGet, "/v1/collections?"+q.Encode(), nil, nil, &p)
			if err != nil {
				return err
			}
			if c.output == "json" {
				_, err := fmt.Fprintf(std.out, "%s\n", raw)
				return err
			}
			printList(std.out, p.Collections)
			fmt.Fprintln(std.out, "\n"+countsLine(p))
			return nil
		},
	}
	c.addFlags(cmd.Flags())
	cmd.Flags().StringSliceVar(&status, "status", nil, "only these: pending, running, succeeded, failed, canceled")
	cmd.Flags().StringVar(&name, "name", "", "only collections of this name")
	cmd.Flags().StringVar(&cursor, "cursor", "", "the page behind the one that named this cursor")
	cmd.Flags().IntVar(&limit, "limit", 50, "at most this many")
	return cmd
}

func countsLine(p page) string {
	var parts []string
	for _, s := range []string{"pending", "running", "succeeded", "failed", "canceled"} {
		parts = append(parts, fmt.Sprintf("%s %d", s, p.Counts[s]))
	}
	line := strings.Join(parts, " · ")
	if p.NextCursor != "" {
		line += "\nmore: --cursor " + p.NextCursor
	}
	return line
}
