#!/usr/bin/env bash
# Makes the Debian that test/nspawn boots: base.sh DIR. DIR appears when it is whole.
# Nothing but packages and what makes each machine differ is changed: tests shall meet
# the Debian that people have.
set -euo pipefail

target=$1
packages=systemd,systemd-sysv,dbus,openssh-server,sudo,iproute2,procps,python3,ca-certificates,supervisor

if [[ $EUID != 0 ]]; then
	echo "nspawn-base: needs root: run it with sudo" >&2
	exit 1
fi
if ! command -v debootstrap >/dev/null || ! command -v systemd-nspawn >/dev/null; then
	echo "nspawn-base: debootstrap or systemd-nspawn is missing: apt-get install debootstrap systemd-container" >&2
	exit 1
fi
mirror=$(apt-get indextargets 'Codename: bookworm' --format '$(REPO_URI)' 2>/dev/null | head -n 1)
mkdir -p "$(dirname "$target")"
work=$(mktemp -d "$target.XXXXXX")
# debootstrap leaves /proc mounted if it is interrupted: what is removed must be our own.
trap 'umount -q "$work/proc" "$work/sys" 2>/dev/null || true; rm -rf --one-file-system "$work"' EXIT

echo "Making a Debian with systemd (once; it takes minutes)"
if ! debootstrap --variant=minbase --include="$packages" bookworm "$work" "${mirror:-http://deb.debian.org/debian}" >"$target.log" 2>&1; then
	tail -n 20 "$target.log" >&2
	echo "nspawn-base: debootstrap failed; all it said is in $target.log" >&2
	exit 1
fi
chmod 0755 "$work"
# Machines have an identity, a name and host keys of their own.
: >"$work/etc/machine-id"
rm -f "$work"/etc/ssh/ssh_host_* "$work/etc/hostname" "$work/var/lib/dbus/machine-id"
# The network is what the test gives; no service runs that a fresh Debian server has not.
rm -f "$work"/etc/systemd/system/multi-user.target.wants/supervisor.service
rm -rf "$work"/var/cache/apt/archives/*.deb "$work"/var/lib/apt/lists/*
mv -T "$work" "$target"
rm -f "$target.log"
