package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/keten-ledger/keten/executor"
	"github.com/keten-ledger/keten/executor/handlers"
	"github.com/keten-ledger/keten/internal/catalog"
	"github.com/keten-ledger/keten/ledger"
)

func loadCatalog(path string) (*catalog.Catalog, error) {
	if path == "" {
		return &catalog.Catalog{}, nil
	}
	c, err := catalog.Load(path)
	if err != nil {
		return nil, exitWith(exitUsage, fmt.Errorf("--catalog: %w", err))
	}
	return c, nil
}

// newRegistry has a handler for each type of the catalog that has a runner, and
// what register adds; nil for nothing.
func (s *server) newRegistry(types *catalog.Catalog, register func(*executor.Registry) error) (*executor.Registry, error) {
	registry := executor.NewRegistry()
	for _, name := range types.TypeNames() {
		t, _ := types.Type(name)
		handler, err := s.runner(t)
		if err == nil && !s.cfg.has(roleExecutor) && t.HasRunner() {
			handler = notHere // the API only wants to know the type
		}
		if err != nil {
			return nil, exitWith(exitUsage, fmt.Errorf("--catalog: type %s: %w", name, err))
		}
		if handler != nil {
			registry.HandleRaw(name, checkedResult(types, name, handler))
		}
		if t.MaxConcurrent > 0 {
			registry.Limit(name, t.MaxConcurrent)
		}
	}
	if register != nil {
		if err := register(registry); err != nil {
			return nil, err
		}
	}
	return registry, nil
}

// runner makes the handler of a type, or nil when one in Go is to serve it.
func (s *server) runner(t *catalog.Type) (executor.RawHandler, error) {
	audience := ledger.Audience(t.Audience)
	switch {
	case !s.cfg.has(roleExecutor):
		return nil, nil // accounts, files and keys are the executors' matter
	case t.Exec != nil:
		return handlers.Exec(handlers.ExecConfig{
			Command: t.Exec.Command, Dir: t.Exec.Dir, Env: environment(t.Exec.Env), User: t.Exec.User,
			OutputLimit: int64(t.Exec.OutputLimit), Audience: audience,
		})
	case t.HTTP != nil:
		return s.httpRunner(t.HTTP, audience)
	case t.Sleep != nil:
		return handlers.Sleep(handlers.SleepConfig{Duration: t.Sleep.Duration, Audience: audience})
	}
	return nil, nil
}

// notHere stands for the handlers of other processes.
func notHere(context.Context, executor.RawTask) (json.RawMessage, error) {
	return nil, executor.Permanent(errors.New("this process runs no tasks"))
}

func (s *server) httpRunner(h *catalog.HTTP, audience ledger.Audience) (executor.RawHandler, error) {
	if h.Deferred && s.outcomeKey == nil {
		return nil, errors.New("deferred needs a key for outcome tokens (--outcome-key-file)")
	}
	allowed, err := s.cfg.allowedNetworks()
	if err != nil {
		return nil, err
	}
	status := make(map[int]handlers.Meaning, len(h.Status))
	for code, meaning := range h.Status {
		status[code] = handlers.Meaning(meaning)
	}
	return handlers.HTTP(handlers.HTTPConfig{
		Method: h.Method, URL: h.URL, Headers: h.Headers, HeadersFrom: h.HeadersFrom, Deferred: h.Deferred, OutcomeURL: s.publicURL(),
		Status: status, AllowPrivate: h.AllowPrivate, Allowed: allowed, Audience: audience,
	})
}

// environment resolves the variables a type may see; one that is not set is
// not passed on.
func environment(names []string) []string {
	var env []string
	for _, name := range names {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// checkedResult holds a handler to the result_schema of its type.
func checkedResult(types *catalog.Catalog, name string, next executor.RawHandler) executor.RawHandler {
	return func(ctx context.Context, t executor.RawTask) (json.RawMessage, error) {
		result, err := next(ctx, t)
		if err != nil {
			return nil, err
		}
		if err := types.CheckResult(name, result); err != nil {
			return nil, &executor.Error{Code: ledger.CodeInvalidResult, Message: "the result does not fit the type's result_schema: " + err.Error(), Audience: ledger.AudienceOperator}
		}
		return result, nil
	}
}
