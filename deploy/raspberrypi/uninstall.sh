#!/bin/sh
# Removes the edge-broker service and program; the config and the data only with --purge. See --help.

set -eu

name=edge-broker
prefix=/opt/edge-broker
etc=/etc/edge-broker
state=/var/lib/edge-broker
unit=/etc/systemd/system/edge-broker.service
wants=/etc/systemd/system/multi-user.target.wants/edge-broker.service
overrides=/etc/systemd/system/edge-broker.service.d
command_link=/usr/local/bin/edge-broker

usage() {
    cat <<USAGE
usage: uninstall.sh [--purge] [--root DIR]

Stops and removes edge-broker; run it as root. The config ($etc), the data
($state) and the user $name stay, so that install.sh can go on from there.

  --purge     remove these too. Messages that were not delivered yet are lost
  --root DIR  remove it from the system image under DIR; no systemctl is called
  --help      this text
USAGE
}

say() { printf '%s\n' "$*"; }
fail() {
    printf 'uninstall.sh: %s\n' "$*" >&2
    exit 1
}

parse_arguments() {
    purge=no root=''
    while [ $# -gt 0 ]; do
        case $1 in
            --purge) purge=yes ;;
            --root)
                [ -n "${2:-}" ] || fail "--root needs a value; see --help"
                [ -d "$2" ] || fail "the image directory $2 does not exist"
                root=$(cd "$2" && pwd)
                [ "$root" != / ] || fail "--root / is the running system: leave --root out"
                shift
                ;;
            --help | -h)
                usage
                exit 0
                ;;
            *) fail "unknown argument $1; see --help" ;;
        esac
        shift
    done
    [ "$(id -u)" -eq 0 ] || fail "must run as root, for example: sudo $0"
}

stop_service() {
    [ -z "$root" ] && [ -e "$unit" ] || return 0
    if [ -d /run/systemd/system ]; then
        systemctl --quiet disable --now "$name"
        say "stopped and disabled"
    else
        systemctl --quiet disable "$name"
        say "disabled"
    fi
}

remove_program() {
    rm -rf "$root$prefix" "$root$unit" "$root$wants"
    [ ! -L "$root$command_link" ] || rm -f "$root$command_link"
    if [ -z "$root" ] && [ -d /run/systemd/system ]; then
        systemctl daemon-reload
        systemctl reset-failed "$name" 2>/dev/null || true # fails where there is nothing to forget
    fi
    say "removed: $prefix, $unit, $command_link"
}

remove_data() {
    rm -rf "$root$etc" "$root$state" "$root$overrides"
    for database in passwd group; do
        remover=userdel
        [ "$database" = passwd ] || remover=groupdel
        if grep -q "^$name:" "$root/etc/$database" 2>/dev/null; then
            "$remover" ${root:+--prefix "$root"} "$name"
        fi
    done
    say "removed: $etc, $state, the user $name"
}

parse_arguments "$@"
stop_service
remove_program
if [ "$purge" = yes ]; then
    remove_data
else
    say "kept: $etc and $state; --purge removes them too"
fi
