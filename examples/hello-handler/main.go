// Hello-handler runs two task types written in Go. The guide
// docs/guides/handlers.md explains it line by line.
package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/keten-ledger/keten/executor"
	"github.com/keten-ledger/keten/ledger"
	"github.com/keten-ledger/keten/worker"
)

func main() {
	if err := worker.Main(context.Background(), os.Args[1:], handlers("greetings")); err != nil {
		fmt.Fprintln(os.Stderr, "hello-handler:", err)
		os.Exit(1)
	}
}

// handlers registers what this program can do.
func handlers(folder string) *executor.Registry {
	registry := executor.NewRegistry()
	registry.Use(executor.Logging())
	executor.Handle(registry, "greeting.compose", compose)
	executor.Handle(registry, "greeting.deliver", mailbox{folder}.deliver)
	return registry
}

type composeArgs struct {
	Name string `json:"name"`
}

type greeting struct {
	Text string `json:"text"`
}

// compose makes the greeting. What it returns is recorded, and handed to the next
// task.
func compose(_ context.Context, t executor.Task[composeArgs]) (greeting, error) {
	if strings.TrimSpace(t.Args.Name) == "" {
		return greeting{}, executor.Fail("no_name", ledger.AudienceUser, "whom to greet? the name is empty")
	}
	return greeting{Text: "Hello, " + t.Args.Name + "!"}, nil
}

// A mailbox is a folder that greetings are delivered to.
type mailbox struct{ folder string }

type delivery struct {
	File string `json:"file"`
}

// deliver writes the greeting to a file. The file has the task's id for a name,
// which is the same in every attempt: delivering twice leaves one file.
func (m mailbox) deliver(_ context.Context, t executor.Task[struct{}]) (delivery, error) {
	var g greeting
	if err := t.DecodePrevious(&g); err != nil {
		return delivery{}, err
	}
	t.Output.Progress(50, "writing the file")
	file := filepath.Join(m.folder, t.TaskID.String()+".txt")
	err := os.WriteFile(file, []byte(g.Text+"\n"), 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		return delivery{}, executor.Fail("no_mailbox", ledger.AudienceOperator, "there is no folder "+m.folder+": make it, then retry")
	}
	if err != nil {
		return delivery{}, fmt.Errorf("deliver the greeting: %w", err) // is tried again, as often as max_attempts allows
	}
	return delivery{File: file}, nil
}
