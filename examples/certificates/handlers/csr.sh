#!/bin/sh
# Creates the certificate signing request, and says what must be found where for
# the domain to be proven.
handlers=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$handlers/lib.sh"
read_task
key=keys/$domain.key
previous key "$key"

csr=requests/$task_id.csr
log "creating the request for $domain"
openssl req -new -key "$state/$key" -subj "/CN=$domain" -addext "subjectAltName=DNS:$domain" \
	-out "$scratch/csr" >&2 || die "openssl cannot create a request with $state/$key"
publish csr "$csr"

challenge "$domain"
printf '{"domain":"%s","key":"%s","csr":"%s","challenge":{"file":"%s","content":"%s"}}\n' \
	"$domain" "$key" "$csr" "challenges/$domain/$token" "$content"
