package httpapi

import (
	"context"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humamux"
	"github.com/google/uuid"

	"github.com/keten-ledger/keten/internal/readmodel"
	"github.com/keten-ledger/keten/ledger"
)

const (
	// defaultVerdictWait is how long a command waits for its verdict unless
	// the request says Prefer: wait=n.
	defaultVerdictWait = 2 * time.Second
	// maxWait bounds every wait that a request can ask for.
	maxWait = 60 * time.Second
	// atLeastWait bounds how long a read waits for the position it names.
	atLeastWait = 5 * time.Second
)

// checkParameters refuses what huma lets pass: a query that cannot be parsed,
// parameters that are empty or there twice, of which one would be dropped.
func (a *API) checkParameters(ctx huma.Context, next func(huma.Context)) {
	r, w := humamux.Unwrap(ctx)
	if p := badQuery(r.URL.RawQuery, ctx.Operation()); p != nil {
		a.write(w, r, p)
		return
	}
	for _, name := range []string{headerIdempotencyKey, headerAtLeast} {
		if values := r.Header.Values(name); len(values) > 1 || len(values) == 1 && values[0] == "" {
			a.write(w, r, badParameter("header."+name, "must be there once and not be empty, or not at all"))
			return
		}
	}
	next(ctx)
}

func badQuery(raw string, op *huma.Operation) *Problem {
	query, err := url.ParseQuery(raw)
	if err != nil {
		return badParameter("query", "cannot be parsed")
	}
	for _, param := range op.Parameters {
		values := query[param.Name]
		if param.In != "query" || len(values) == 0 {
			continue
		}
		if len(values) > 1 && (param.Explode == nil || !*param.Explode) {
			return badParameter("query."+param.Name, "is there twice")
		}
		if slices.Contains(values, "") {
			return badParameter("query."+param.Name, "is empty")
		}
	}
	return nil
}

// verdictWait reads Prefer: wait=n (RFC 7240), in seconds. As the RFC wants, a
// preference that cannot be understood is not there; applied is what the answer
// says of one that was.
func verdictWait(prefer string) (wait time.Duration, applied string) {
	for preference := range strings.SplitSeq(prefer, ",") {
		preference, _, _ = strings.Cut(preference, ";")
		name, value, _ := strings.Cut(preference, "=")
		if !strings.EqualFold(strings.TrimSpace(name), "wait") {
			continue
		}
		seconds, err := strconv.ParseUint(strings.Trim(strings.TrimSpace(value), `"`), 10, 31)
		if err != nil {
			continue
		}
		wait = min(time.Duration(seconds)*time.Second, maxWait)
		return wait, "wait=" + strconv.Itoa(int(wait/time.Second))
	}
	return defaultVerdictWait, ""
}

// pollWait reads ?wait=30s.
func pollWait(s string) (time.Duration, error) {
	if s == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 || d > maxWait {
		return 0, badParameter("query.wait", "must be a duration such as 30s, at most %s", maxWait)
	}
	return d, nil
}

// parseID reads a UUID in its usual form; others, such as one in braces, are
// not what the API writes.
func parseID(name, s string) (uuid.UUID, error) {
	id, err := uuid.Parse(s)
	if err != nil || len(s) != len(uuid.UUID{}.String()) {
		return uuid.Nil, badParameter("path."+name, "must be a UUID")
	}
	return id, nil
}

func formatPosition(p readmodel.Position) string {
	return strconv.Itoa(int(p.Partition)) + ":" + strconv.FormatInt(p.Offset, 10)
}

// parsePosition reads partition:offset as formatPosition writes it.
func (a *API) parsePosition(s string) (readmodel.Position, bool) {
	partition, offset, _ := strings.Cut(s, ":")
	p, err := strconv.ParseInt(partition, 10, 32)
	if err != nil || p < 0 || p >= int64(a.cfg.Partitions) {
		return readmodel.Position{}, false
	}
	o, err := strconv.ParseInt(offset, 10, 64)
	if err != nil || o < 0 {
		return readmodel.Position{}, false
	}
	position := readmodel.Position{Partition: int32(p), Offset: o}
	return position, formatPosition(position) == s
}

// waitAtLeast waits until the read model has reached the position in a
// Keten-At-Least header; an older answer would be worse than none.
func (a *API) waitAtLeast(ctx context.Context, header string) error {
	if header == "" {
		return nil
	}
	position, ok := a.parsePosition(header)
	if !ok {
		return badParameter("header."+headerAtLeast, "must be a position of this ledger, as Keten-Position gave it")
	}
	ctx, cancel := context.WithTimeout(ctx, atLeastWait)
	defer cancel()
	return a.store.WaitFor(ctx, position)
}

// parseLabels reads label=name:value filters.
func parseLabels(list []string) (map[string]string, error) {
	labels := make(map[string]string, len(list))
	for _, l := range list {
		name, value, ok := strings.Cut(l, ":")
		if !ok || name == "" {
			return nil, badParameter("query.label", "must be name:value")
		}
		if old, there := labels[name]; there && old != value {
			return nil, badParameter("query.label", "asks for two values of %.64q", name)
		}
		labels[name] = value
	}
	if err := ledger.CheckLabels("", labels); err != nil {
		return nil, badParameter("query.label", "%v", err)
	}
	return labels, nil
}

// checkFilter refuses text that no collection can have and PostgreSQL cannot
// compare with.
func checkFilter(name, value string) error {
	if err := ledger.CheckText("", value, ledger.MaxNameBytes); err != nil {
		return badParameter("query."+name, "%v", err)
	}
	return nil
}

// collectionPath is where a collection is found.
func collectionPath(id uuid.UUID) string { return "/v1/collections/" + id.String() }

// commandPath is where the verdict of a command is found.
func commandPath(id uuid.UUID) string { return "/v1/commands/" + id.String() }
