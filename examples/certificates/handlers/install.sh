#!/bin/sh
# Checks the certificate the way a client would, and that it belongs to the key.
# Only what passes becomes the bundle that a server reads.
handlers=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$handlers/lib.sh"
read_task
key=keys/$domain.key
previous key "$key"
certificate=$(previous_file certificate certificates crt)

cat "$state/$certificate" "$state/ca/ca.crt" >"$scratch/bundle" || die "$state/$certificate is gone"
openssl verify -CAfile "$state/ca/ca.crt" -purpose sslserver -verify_hostname "$domain" "$scratch/bundle" >&2 ||
	die "$state/$certificate is not good for $domain"
same_key "$state/$key" "$scratch/bundle" || die "$state/$certificate does not belong to $state/$key"
chmod 644 "$scratch/bundle"

serial=$(openssl x509 -in "$scratch/bundle" -noout -serial)
not_after=$(openssl x509 -in "$scratch/bundle" -noout -enddate)
fingerprint=$(openssl x509 -in "$scratch/bundle" -outform DER | sha256)
bundle=installed/$domain.pem
publish bundle "$bundle"
log "installed $state/$bundle, to be served with $state/$key"

printf '{"domain":"%s","bundle":"%s","key":"%s","serial":"%s","not_after":"%s","fingerprint_sha256":"%s"}\n' \
	"$domain" "$bundle" "$key" "${serial#*=}" "${not_after#*=}" "$fingerprint"
