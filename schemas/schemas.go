package schemas

import "embed"

// FS holds the files of this package under their names, such as openapi.yaml
// and events/keten.v1.TaskStarted.json.
//
//go:embed *.[jy]* events/*.json output/*.json
var FS embed.FS
