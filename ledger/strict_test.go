package ledger_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/ledger"
)

type strictDocument struct {
	Name   string            `json:"name"`
	Labels map[string]string `json:"labels"`
	Limit  *int              `json:"limit"`
	Quiet  bool              `json:"quiet"`
	Items  []strictItem      `json:"items"`
}

type strictItem struct {
	Args json.RawMessage `json:"args"`
	Name string          `json:"name"`
}

// What a sender means arrives, to the last digit.
func TestDecodeStrictKeepsWhatIsSent(t *testing.T) {
	t.Parallel()
	var d strictDocument
	body := `{"name":"ü","labels":{"a":"b"},"limit":0,"quiet":true,"items":[{"args":{"n":123456789012345678901234567890.10}},{"args":null}]}`
	require.NoError(t, ledger.DecodeStrict([]byte(body), &d))
	limit := 0
	require.Equal(t, strictDocument{
		Name: "ü", Labels: map[string]string{"a": "b"}, Limit: &limit, Quiet: true,
		Items: []strictItem{{Args: json.RawMessage(`{"n":123456789012345678901234567890.10}`)}, {Args: json.RawMessage(`null`)}},
	}, d)
}

// What would be lost or misread is refused, with its place.
func TestDecodeStrictRefuses(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		body, path, rule string
		malformed        bool
	}{
		"an unknown member":                  {body: `{"nam":"x"}`, path: "/nam", rule: "is not a known member"},
		"a member in another case":           {body: `{"Name":"x"}`, path: "/Name", rule: "is not a known member"},
		"an unknown member deep down":        {body: `{"items":[{},{"x":1}]}`, path: "/items/1/x", rule: "is not a known member"},
		"a number for a string":              {body: `{"name":1}`, path: "/name", rule: "must be a string"},
		"a string for a boolean":             {body: `{"quiet":"true"}`, path: "/quiet", rule: "must be true or false"},
		"a fraction for an integer":          {body: `{"limit":1.5}`, path: "/limit", rule: "must be an integer"},
		"a number beyond all integers":       {body: `{"limit":99999999999999999999}`, path: "/limit", rule: "must be an integer"},
		"an object for an array":             {body: `{"items":{}}`, path: "/items", rule: "must be an array"},
		"an array for an object":             {body: `{"labels":[]}`, path: "/labels", rule: "must be an object"},
		"an array for the document":          {body: `[]`, path: "", rule: "must be an object"},
		"null for a string":                  {body: `{"name":null}`, path: "/name", rule: "must not be null"},
		"null for an optional number":        {body: `{"limit":null}`, path: "/limit", rule: "must not be null"},
		"null for an array":                  {body: `{"items":null}`, path: "/items", rule: "must not be null"},
		"null within a map":                  {body: `{"labels":{"a":null}}`, path: "/labels/a", rule: "must not be null"},
		"null for the document":              {body: `null`, path: "", rule: "must not be null"},
		"a duplicate member":                 {body: `{"name":"a","name":"b"}`, path: "/name", rule: "is there twice", malformed: true},
		"a duplicate in what is kept as is":  {body: `{"items":[{"args":{"k":1,"k":2}}]}`, path: "/items/0/args/k", rule: "is there twice", malformed: true},
		"a lone surrogate":                   {body: `{"items":[{"args":{"k":"\ud800"}}]}`, path: "/items/0/args/k", rule: "is not valid JSON", malformed: true},
		"bytes that are not UTF-8":           {body: "{\"name\":\"\xff\"}", path: "/name", rule: "is not valid JSON", malformed: true},
		"half a document":                    {body: `{"name":"a"`, path: "", rule: "is not valid JSON", malformed: true},
		"nothing":                            {body: ``, path: "", rule: "is not valid JSON", malformed: true},
		"a second document behind the first": {body: `{} {}`, path: "", rule: "is not valid JSON", malformed: true},
		"a comment":                          {body: `{} // why`, path: "", rule: "is not valid JSON", malformed: true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var d strictDocument
			err := ledger.DecodeStrict([]byte(tt.body), &d)
			var invalid *ledger.InvalidError
			require.ErrorAs(t, err, &invalid)
			require.Equal(t, ledger.InvalidError{Path: tt.path, Rule: tt.rule}, *invalid)
			if tt.malformed {
				require.ErrorIs(t, err, ledger.ErrMalformed)
			} else {
				require.NotErrorIs(t, err, ledger.ErrMalformed)
			}
		})
	}
}
