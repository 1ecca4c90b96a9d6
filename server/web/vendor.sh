#!/usr/bin/env bash
# Fetches what the console shows from elsewhere into static/vendor, at the versions
# pinned here, each with its licence. Run it after changing a version, and commit the
# result: building and running Quorate needs neither Node nor the network.
set -euo pipefail
cd "$(dirname "$0")/static/vendor"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

# fetch NAME VERSION SHA512 FILE... unpacks the files and the licence of a package.
fetch() {
	local name=$1 version=$2 want=$3 file
	shift 3
	(cd "$tmp" && npm pack --silent "$name@$version" >/dev/null)
	local archive=$tmp/$name-$version.tgz
	local got
	got=$(sha512sum "$archive" | cut -d' ' -f1)
	if [[ $got != "$want" ]]; then
		echo "vendor.sh: $name@$version has the digest $got, not the one pinned here: find out why before you change it" >&2
		exit 1
	fi
	mkdir -p "$tmp/$name"
	tar -xzf "$archive" -C "$tmp/$name" --strip-components 1
	for file in "$@"; do
		cp "$tmp/$name/dist/$file" .
		# Every text file of the repository ends with one newline.
		[[ -z $(tail -c1 "$(basename "$file")") ]] || echo >> "$(basename "$file")"
	done
	cp "$tmp/$name/LICENSE" "$name.LICENSE"
}

fetch htmx.org 2.0.11 \
	4e1c7f5ada5e390a92aea042c3f0357301891a0e14ad56b7fac5b41a6accde9e202603bcf5e707e2ab5b9f2cc30d616f053aa39c83028042d336deb7e9db5a98 \
	htmx.min.js
fetch idiomorph 0.7.4 \
	b82752a4ba37b8c7ea3a6af05d3a51d64fecab8b1298a0bb978a3f2dd24e114f8c30cabec247af46a390627de53fbbdfcfd32ff9448112a3ef8b45e174bf4437 \
	idiomorph-ext.min.js
fetch uplot 1.6.32 \
	2883159c6ebccefbb95d751b0b82d010f9e1c0ec41b8bc96d401eda66e882935c89a46cb824332fa369b8cb8122cc6ac36e186cd09bf7a9ded3a4c93c6989023 \
	uPlot.iife.min.js uPlot.min.css
