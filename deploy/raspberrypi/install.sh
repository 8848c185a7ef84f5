#!/bin/sh
# Installs or upgrades edge-broker as a systemd service. See --help.
#
# Every run builds a fresh venv beside the one in use and switches over with a rename, so that a power
# cut, a lost network or a failed build leaves the installed version as it was. A new version that
# refuses the existing config is never switched to, one that does not come up is switched back.

set -eu
umask 022

name=edge-broker
prefix=/opt/edge-broker
etc=/etc/edge-broker
state=/var/lib/edge-broker
unit=/etc/systemd/system/edge-broker.service
command_link=/usr/local/bin/edge-broker

usage() {
    cat <<USAGE
usage: install.sh [--wheel FILE] [--python PATH] [--pip-args ARGS] [--no-start] [--root DIR]

Installs edge-broker as a systemd service, or upgrades it; run it as root. It installs the checkout
that it lies in, or the wheel that it is given. An existing config is never touched.

  --wheel FILE     install this wheel instead of the checkout
  --python PATH    the Python to build on, 3.11 or newer (default: python3)
  --pip-args ARGS  more arguments for pip, separated by spaces; for a gateway without Internet:
                   --pip-args "--no-index --find-links /media/usb/wheels"
  --no-start       install and enable, but do not start or restart now
  --root DIR       install into the system image under DIR; nothing outside of it is changed and no
                   systemctl is called. The image needs the same architecture, and --python at the same
                   path; for another one run this script inside the image instead
  --help           this text

Afterwards:
  $etc/edge-broker.toml    the config
  $state                   the data
  $prefix/venv             the program ($command_link leads to it)
  $unit
USAGE
}

say() { printf '%s\n' "$*"; }
fail() {
    printf 'install.sh: %s\n' "$*" >&2
    exit 1
}

parse_arguments() {
    wheel='' python=python3 pip_args='' start=yes root=''
    while [ $# -gt 0 ]; do
        case $1 in
            --wheel | --python | --pip-args | --root)
                [ -n "${2:-}" ] || fail "$1 needs a value; see --help"
                case $1 in
                    --wheel) wheel=$2 ;;
                    --python) python=$2 ;;
                    --pip-args) pip_args=$2 ;;
                    --root) root=$2 ;;
                esac
                shift
                ;;
            --no-start) start=no ;;
            --help | -h)
                usage
                exit 0
                ;;
            *) fail "unknown argument $1; see --help" ;;
        esac
        shift
    done
}

check_arguments() {
    here=$(cd "$(dirname "$0")" && pwd)
    checkout=$(cd "$here/../.." && pwd)
    if [ -n "$wheel" ]; then
        [ -f "$wheel" ] || fail "there is no wheel at $wheel"
    else
        [ -f "$checkout/edge_broker/__init__.py" ] ||
            fail "$checkout is no checkout of edge-broker; give a built one with --wheel FILE"
    fi
    if [ -n "$root" ]; then
        [ -d "$root" ] || fail "the image directory $root does not exist"
        root=$(cd "$root" && pwd)
        [ "$root" != / ] || fail "--root / is the running system: leave --root out"
    fi
    [ "$(id -u)" -eq 0 ] || fail "must run as root, for example: sudo $0"
}

check_machine() {
    command -v "$python" >/dev/null 2>&1 ||
        fail "$python is not there; install it (apt install python3 python3-venv) or name one with --python"
    version=$("$python" -I -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])')
    "$python" -I -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail "edge-broker needs Python 3.11 or newer and $python is $version;" \
            "Raspberry Pi OS 12 (bookworm) has it, on an older one name another with --python"
    "$python" -I -c 'import ensurepip, venv' 2>/dev/null ||
        fail "$python cannot make virtual environments; apt install python3-venv"
    programs='systemd-sysusers systemctl runuser'
    [ -z "$root" ] || programs=systemd-sysusers
    for program in $programs; do
        command -v "$program" >/dev/null 2>&1 || fail "$program is missing; edge-broker.service needs systemd"
    done
}

make_user() {
    mkdir -p "$root/etc"
    # Creates what is missing and leaves what is there, in the running system as in an image.
    systemd-sysusers ${root:+--root="$root"} --inline \
        "u $name - \"edge-broker, MQTT\" $state /usr/sbin/nologin" >/dev/null
    # The image's numbers may be different from those of the machine that builds it.
    user_id=$(awk -F: -v name="$name" '$1 == name { print $3 }' "$root/etc/passwd")
    group_id=$(awk -F: -v name="$name" '$1 == name { print $3 }' "$root/etc/group")
    case "$user_id:$group_id" in
        :* | *:) fail "the user $name could not be made in ${root:-this system}" ;;
    esac
}

# Python runs isolated (-I), or it would import the checkout that one stands in instead of what was installed.
# Leaves a whole, tested venv in $release, under the name that it will have in the running system.
build_release() {
    mkdir -p "$root$prefix/releases"
    release=$prefix/releases/$(date -u +%Y%m%d-%H%M%S)-$$
    unfinished=$root$release
    bin=$root$release/bin
    say "building with Python $version, which takes a few minutes on a small Pi"
    "$python" -I -m venv "$root$release"
    package=$wheel
    if [ -z "$package" ]; then
        # shellcheck disable=SC2086 # --pip-args is a list of words
        "$bin/python" -I -m pip --quiet --disable-pip-version-check wheel --no-deps \
            --wheel-dir "$scratch" $pip_args "$checkout"
        package=$(find "$scratch" -name '*.whl')
    fi
    # shellcheck disable=SC2086
    "$bin/python" -I -m pip --quiet --disable-pip-version-check install $pip_args "$package"
    new_version=$("$bin/python" -I -c 'import edge_broker; print(edge_broker.__version__)')
    if [ -n "$root" ]; then
        # pip wrote the path of the building machine into the scripts' first lines.
        "$bin/python" -I - "$root$release" "$release" <<'PYTHON'
import pathlib, sys
built, booted = sys.argv[1:]
for script in [*pathlib.Path(built, "bin").iterdir(), pathlib.Path(built, "pyvenv.cfg")]:
    if not script.is_symlink():
        script.write_bytes(script.read_bytes().replace(built.encode(), booted.encode()))
PYTHON
    fi
}

install_config() {
    install -d -m 0750 -o 0 -g "$group_id" "$root$etc"
    install -d -m 0700 -o "$user_id" -g "$group_id" "$root$state"
    if [ -e "$root$etc/edge-broker.toml" ]; then
        say "config kept as it was: $etc/edge-broker.toml"
    else
        install -m 0640 -o 0 -g "$group_id" "$here/edge-broker.toml" "$root$etc/edge-broker.toml"
        say "config installed: $etc/edge-broker.toml"
    fi
}

# Asked as the service's user: a key that it may not read is found here and not at the restart.
check_config() {
    [ -z "$root" ] || return 0
    runuser -u "$name" -- "$bin/edge-broker" check "$etc/edge-broker.toml" ||
        fail "version $new_version does not accept $etc/edge-broker.toml (see above);" \
            "what is installed was left as it was: correct the config and run this again"
}

# Synced before and after: a power cut finds the old release or the new one, whole.
point_venv_at() {
    ln -sfn "$1" "$root$prefix/venv.new"
    sync -f "$root$prefix"
    mv -fT "$root$prefix/venv.new" "$root$prefix/venv"
    sync -f "$root$prefix"
}

switch_over() {
    old_release=$(readlink "$root$prefix/venv" 2>/dev/null || true)
    point_venv_at "releases/${release##*/}"
    unfinished=''
    install -d "$root/etc/systemd/system/multi-user.target.wants" "$root/usr/local/bin"
    [ -z "$old_release" ] || cp -p "$root$unit" "$scratch/old.service"
    install -m 0644 "$here/edge-broker.service" "$root$unit"
    ln -sfn "$prefix/venv/bin/edge-broker" "$root$command_link"
}

switch_back() {
    [ -f "$scratch/old.service" ] ||
        fail "version $new_version is installed and does not come up; see: journalctl -u $name -n 50"
    point_venv_at "$old_release"
    install -m 0644 "$scratch/old.service" "$unit"
    unfinished=$release
    systemctl daemon-reload
    systemctl restart "$name" ||
        fail "neither version $new_version nor the one before it comes up; see: journalctl -u $name -n 50"
    fail "version $new_version did not come up, the one before it runs again; see: journalctl -u $name -n 50"
}

start_service() {
    if [ -n "$root" ]; then
        ln -sfn "$unit" "$root/etc/systemd/system/multi-user.target.wants/edge-broker.service"
        say "enabled for the image's first boot"
        return
    fi
    systemctl --quiet enable "$name"
    if [ ! -d /run/systemd/system ]; then
        say "enabled; systemd does not run here, the service starts at the next boot"
        return
    fi
    systemctl daemon-reload
    if [ "$start" = no ]; then
        say "enabled, not started (--no-start); start it with: systemctl restart $name"
        return
    fi
    # Returns when the broker said that it is ready (Type=notify).
    systemctl restart "$name" || switch_back
    say "running; its log: journalctl -u $name -f"
}

remove_old_releases() {
    if [ -z "$root" ] && [ "$start" = no ]; then
        return 0 # a broker that goes on running still loads modules from its own; the next run removes it
    fi
    for other in "$root$prefix"/releases/*; do
        [ "$other" = "$root$release" ] || rm -rf "$other"
    done
}

parse_arguments "$@"
check_arguments
check_machine
unfinished=''
scratch=$(mktemp -d)
trap 'rm -rf "$scratch" ${unfinished:+"$unfinished"}' EXIT
trap 'exit 1' HUP INT TERM

make_user
build_release
install_config
check_config
switch_over
start_service
remove_old_releases

say "edge-broker $new_version is installed${root:+ in $root}"
say "  config   $etc/edge-broker.toml"
say "  data     $state"
say "  program  $prefix/venv, and $command_link"
say "  service  $unit"
