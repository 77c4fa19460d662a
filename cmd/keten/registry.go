package main

import (
	"context"
	"encoding/json"
	"os"

	"github.com/keten-ledger/keten/executor"
	"github.com/keten-ledger/keten/internal/catalog"
	"github.com/keten-ledger/keten/ledger"
)

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
