//go:build goexperiment.jsonv2

package ledger

// With this experiment on, github.com/go-json-experiment/json hands over to the
// standard library of whatever Go builds this, and go.mod no longer says which
// decoder judges records. The decoder is part of the rules: two builds could
// disagree about a record and never notice. So this does not compile.
var _ = build_with_GOEXPERIMENT_nojsonv2_since_the_decoder_is_part_of_the_rules //nolint:revive // it is there to be read
