package handlers

import (
	"encoding/json"
	"time"

	"github.com/google/uuid"

	"github.com/keten-ledger/keten/executor"
)

// A document is the task as programs outside get it.
type document struct {
	Args         json.RawMessage `json:"args"`
	Previous     json.RawMessage `json:"previous"`
	CollectionID uuid.UUID       `json:"collection_id"`
	TaskID       uuid.UUID       `json:"task_id"`
	Run          int             `json:"run"`
	Attempt      int             `json:"attempt"`
	Fence        int64           `json:"fence"`
	Deadline     time.Time       `json:"deadline"`
	Type         string          `json:"type"`
	Name         string          `json:"name"`
}

func newDocument(t executor.RawTask) document {
	return document{
		Args: orNull(t.Args), Previous: orNull(t.Previous), CollectionID: t.Collection, TaskID: t.TaskID,
		Run: t.Run, Attempt: t.Attempt, Fence: t.Fence, Deadline: t.Deadline.UTC(), Type: t.Type, Name: t.Name,
	}
}

func orNull(p json.RawMessage) json.RawMessage {
	if len(p) == 0 {
		return json.RawMessage("null")
	}
	return p
}
