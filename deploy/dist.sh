#!/usr/bin/env bash
# Makes what is published of a release, in dist/: for each architecture a static
# binary in a tar.gz, a deb and an rpm, each with shell completions; and SHA256SUMS.
# The same commit gives the same bytes. Called by `make dist` with VERSION, LDFLAGS
# and NFPM set.
set -euo pipefail
: "${VERSION:?}" "${LDFLAGS:?}" "${NFPM:?}"

# Files bear the time of the commit, not of the build.
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || date +%s)
export SOURCE_DATE_EPOCH
# Packages have no v in their version.
export PACKAGE_VERSION=${VERSION#v}
# Without a tag, git names the commit alone, which no package manager can order.
[[ $PACKAGE_VERSION == [0-9]*.[0-9]*.[0-9]* ]] || PACKAGE_VERSION=0.0.0~$PACKAGE_VERSION

rm -rf dist
mkdir -p dist
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Completions are the same for every architecture; a binary for this machine writes them.
CGO_ENABLED=0 go build -trimpath -ldflags "$LDFLAGS" -o "$work/native" ./cmd/quorate
mkdir "$work/completions"
"$work/native" completion bash >"$work/completions/quorate.bash"
"$work/native" completion zsh >"$work/completions/_quorate"
"$work/native" completion fish >"$work/completions/quorate.fish"

for ARCH in amd64 arm64; do
	name=quorate_${PACKAGE_VERSION}_linux_$ARCH
	STAGE=$work/$name
	export ARCH STAGE
	mkdir "$STAGE"
	CGO_ENABLED=0 GOOS=linux GOARCH=$ARCH go build -trimpath -ldflags "$LDFLAGS" -o "$STAGE/quorate" ./cmd/quorate
	cp -r README.md CHANGELOG.md LICENSE "$work/completions" "$STAGE/"
	tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" -C "$work" -cf - "$name" |
		gzip -9n >"dist/$name.tar.gz"
	for packager in deb rpm; do
		"$NFPM" package --config deploy/nfpm.yaml --packager "$packager" --target "dist/$name.$packager" >"$work/log" ||
			{ cat "$work/log" >&2; exit 1; }
	done
	echo "dist: $name.tar.gz, .deb, .rpm"
done
(cd dist && sha256sum -- * >SHA256SUMS)
