package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
)

const followEvery = 200 * time.Millisecond

func newStart(std stdio) *cobra.Command {
	var (
		c                      client
		input, file, key, name string
		labels                 []string
		wait                   waitFlags
	)
	cmd := &cobra.Command{
		Use:   "start TEMPLATE [name=value…] | --file request.json",
		Short: "Start a collection",
		Example: `  keten start request-certificate domain=shop.example
  keten start request-certificate --input '{"domain":"shop.example"}' --wait
  keten start --file collection.json`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := c.check(); err != nil {
				return err
			}
			template, body, err := startRequest(std.in, args, input, file)
			if err != nil {
				return err
			}
			if name != "" {
				body["name"] = name
			}
			if len(labels) > 0 {
				if body["labels"], err = keyValuesText(labels); err != nil {
					return err
				}
			}
			col, raw, err := c.start(cmd.Context(), template, key, body)
			if err != nil {
				return err
			}
			return wait.finish(cmd.Context(), std, &c, col, raw)
		},
	}
	c.addFlags(cmd.Flags())
	wait.addFlags(cmd.Flags())
	cmd.Flags().StringVar(&input, "input", "", "the template's input as JSON")
	cmd.Flags().StringVarP(&file, "file", "f", "", "a file with the body for POST /v1/collections, - for standard input")
	cmd.Flags().StringVar(&key, "idempotency-key", "", "starting again with the same key gives the same collection")
	cmd.Flags().StringVar(&name, "name", "", "name of the collection")
	cmd.Flags().StringArrayVar(&labels, "label", nil, "label, name=value; may be repeated")
	return cmd
}

// startRequest makes the body from a file, or from a template's name and input.
func startRequest(in io.Reader, args []string, input, file string) (template string, body map[string]any, err error) {
	body = map[string]any{}
	if file != "" {
		if len(args) > 0 || input != "" {
			return "", nil, exitWith(exitUsage, errors.New("--file stands alone, without a template, input or values"))
		}
		return "", body, readJSONFile(in, file, &body)
	}
	if len(args) == 0 {
		return "", nil, exitWith(exitUsage, errors.New("want a template's name, or --file"))
	}
	values, err := keyValues(args[1:])
	if err != nil {
		return "", nil, err
	}
	body["input"] = values
	if input != "" {
		if len(values) > 0 || !json.Valid([]byte(input)) {
			return "", nil, exitWith(exitUsage, errors.New("--input: want JSON, and no name=value beside it"))
		}
		body["input"] = json.RawMessage(input)
	}
	return args[0], body, nil
}

func readJSONFile(in io.Reader, file string, v *map[string]any) error {
	r := in
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return exitWith(exitUsage, fmt.Errorf("--file: %w", err))
		}
		defer f.Close()
		r = f
	}
	b, err := io.ReadAll(r)
	if err != nil {
		return fmt.Errorf("read %s: %w", file, err)
	}
	var raw map[string]json.RawMessage // keep big numbers as they are
	if err := json.Unmarshal(b, &raw); err != nil {
		return exitWith(exitUsage, fmt.Errorf("--file: %w", err))
	}
	for k, val := range raw {
		(*v)[k] = val
	}
	return nil
}

func keyValuesText(args []string) (map[string]any, error) {
	m, err := keyValues(args)
	for k, v := range m {
		if raw, ok := v.(json.RawMessage); ok {
			m[k] = string(raw)
		}
	}
	return m, err
}
