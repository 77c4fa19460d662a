#!/bin/sh
# Creates the private key of a domain. A key that is there is kept: whoever asks
# twice, or at the same time, gets the same one.
handlers=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$handlers/lib.sh"
read_task

key=keys/$domain.key
if [ ! -f "$state/$key" ]; then
	log "creating a P-256 key for $domain"
	openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$scratch/key" >&2 ||
		die "openssl cannot create a key"
	publish_once key "$key"
else
	log "using the key that $domain has"
fi
openssl pkey -in "$state/$key" -noout >&2 || die "$state/$key is not a private key; move it away, then retry"

printf '{"domain":"%s","key":"%s"}\n' "$domain" "$key"
