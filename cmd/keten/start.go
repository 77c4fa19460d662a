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

const (
	followEvery  = 200 * time.Millisecond
	maxFileBytes = 4 << 20 // more than the API takes
)

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
			template, body, err := startRequest(std.in, args, input, file, name, labels)
			if err != nil {
				return err
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

// startRequest makes the body: a file's bytes as they are, or a template's input.
func startRequest(in io.Reader, args []string, input, file, name string, labels []string) (template string, body any, err error) {
	if file != "" {
		if len(args) > 0 || input != "" || name != "" || len(labels) > 0 {
			return "", nil, exitWith(exitUsage, errors.New("--file stands alone: the file says what the other flags and arguments would"))
		}
		body, err := readJSONFile(in, file)
		return "", body, err
	}
	if len(args) == 0 {
		return "", nil, exitWith(exitUsage, errors.New("want a template's name, or --file"))
	}
	values, err := keyValues(args[1:])
	if err != nil {
		return "", nil, err
	}
	request := map[string]any{"input": values}
	if input != "" {
		if len(values) > 0 || !json.Valid([]byte(input)) {
			return "", nil, exitWith(exitUsage, errors.New("--input: want JSON, and no name=value beside it"))
		}
		request["input"] = json.RawMessage(input)
	}
	if name != "" {
		request["name"] = name
	}
	if len(labels) > 0 {
		if request["labels"], err = keyValuesText(labels); err != nil {
			return "", nil, err
		}
	}
	return args[0], request, nil
}

// readJSONFile returns a file's bytes: the API judges them.
func readJSONFile(in io.Reader, file string) (json.RawMessage, error) {
	r := in
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, exitWith(exitUsage, fmt.Errorf("--file: %w", err))
		}
		defer f.Close()
		r = f
	}
	b, err := io.ReadAll(io.LimitReader(r, maxFileBytes))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	if !json.Valid(b) {
		return nil, exitWith(exitUsage, fmt.Errorf("--file: %s is not JSON", file))
	}
	return b, nil
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
