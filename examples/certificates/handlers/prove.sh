#!/bin/sh
# Proves that whoever asks controls the domain: the challenge that the previous
# task names must be published.
handlers=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$handlers/lib.sh"
read_task
key=keys/$domain.key
previous key "$key"
challenge "$domain"
file=challenges/$domain/$token
previous challenge/file "$file"
previous challenge/content "$content"
csr=$(previous_file csr requests csr)

log "looking for $state/$file"
wanted="$domain is not proven: the file $state/$file must contain the line $content"
remedy="$(dirname "$handlers")/publish-challenge.sh $domain"
[ -z "${KETEN_CERT_STATE:-}" ] || remedy="KETEN_CERT_STATE='$state' $remedy"
remedy="to put it there, run $remedy, then retry"
[ -f "$state/$file" ] || retry_later "$wanted but does not exist; $remedy"
[ "$(cat "$state/$file")" = "$content" ] || retry_later "$wanted but contains something else; $remedy"
log "$domain is proven"

printf '{"domain":"%s","key":"%s","csr":"%s","proof":"%s"}\n' "$domain" "$key" "$csr" "$file"
