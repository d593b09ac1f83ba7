#!/usr/bin/env bash
# Postern's tasks. A thin dispatcher: what a task does is in the Python program or tool that it calls.
# Exit codes: 0 done, 1 failed, 2 wrong usage, 3 something is missing that could not be installed.
set -euo pipefail
umask 022
export LC_ALL=C.UTF-8 TZ=UTC PYTHONDONTWRITEBYTECODE=1
cd "$(dirname "$(readlink -f "$0")")"

# The system's Python before any other: what runs as another user (portal, workers) must be able to read it, which one in
# root's home directory is not.
if [ -z "${PYTHON:-}" ]; then
  PYTHON=python3
  [ ! -x /usr/bin/python3 ] || PYTHON=/usr/bin/python3
fi
VENV=.venv

# What the system must have, by task. Debian's names.
RUN_PACKAGES=(python3-venv iproute2 nftables procps curl isc-dhcp-client)
RADIUS_PACKAGES=(freeradius freeradius-utils)
TEST_PACKAGES=("${RUN_PACKAGES[@]}" "${RADIUS_PACKAGES[@]}" udhcpc conntrack tcpdump tshark dnsutils dnsmasq-base netcat-openbsd util-linux
  iputils-ping iputils-arping ethtool shellcheck openssl chromium)
COMPILER_PACKAGES=(gcc libc6-dev libpython3-dev)
IMAGE_PACKAGES=("${COMPILER_PACKAGES[@]}" python3-venv mmdebstrap squashfs-tools dosfstools mtools e2fsprogs fdisk grub-common grub-pc-bin grub-efi-amd64-bin
  zstd cpio kmod binutils openssl systemd)
FOREIGN_IMAGE_PACKAGES=(qemu-user-static binfmt-support arch-test binutils-aarch64-linux-gnu)
BOOT_PACKAGES=(python3-venv qemu-utils zstd)
TEST_PACKAGES+=("${IMAGE_PACKAGES[@]}" "${BOOT_PACKAGES[@]}" qemu-system-x86 binutils-aarch64-linux-gnu make busybox zopfli)
BENCH_PACKAGES=("${TEST_PACKAGES[@]}" kea-dhcp4-server kea-admin opennds wrk iperf3 tcptrace linux-perf iptables gawk)

usage() {
  cat <<'TEXT'
usage: ./build.sh TASK [ARGUMENTS]

  demo [--once] [--radius]  a whole hotspot in three network namespaces, walked through by a virtual phone (root)
  test [PYTEST ARGUMENTS]   install what the tests need and pass them all (those that need root, when root)
  check                     format, lint, types and shell scripts
  screenshots [NAME ...]    pictures of every page into screenshots/, to be looked at
  sdist                     the source archive and the wheel, into dist/
  deb amd64|arm64|armhf     the Debian package (one for all) and the helper of the analysis (on that machine), into dist/
  openwrt ARCHITECTURE      the OpenWrt packages and their feed, into dist/openwrt/
  image x86_64|rpi-arm64    an image to flash and its upgrade bundle, into dist/ (root)
  boot x86_64|rpi-arm64 [--test]
                            start a built image in QEMU, on this terminal; with --test, prove it (root)
  native                    compile the helper of the analysis for this machine's Python; it runs without, slower
  golden                    rewrite the golden files; the difference is the review
  bench gate|analysis|web   measure, next to other programs, in one table (root)
  fuzz [SECONDS]            feed garbage to every parser, longer than the tests do
  soak [SECONDS]            logins and logouts for half an hour; ends with the memory it had (root)
TEXT
}

say() { printf '%s\n' "$*" >&2; }

# Install the Debian packages that are missing. Their services are not started: the tests start their own, in namespaces.
need_packages() {
  local missing=() package
  for package in "$@"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return
  if [ "$(id -u)" -ne 0 ]; then
    say "missing Debian packages: ${missing[*]}"
    say "install them as root: apt-get install ${missing[*]}"
    exit 3
  fi
  say "installing ${missing[*]}"
  local policy=/usr/sbin/policy-rc.d made=
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    made=yes
  fi
  local status=0
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"; } \
    >/dev/null || status=$?
  [ -z "$made" ] || rm -f "$policy"
  if [ "$status" -ne 0 ]; then
    say "could not install ${missing[*]}; see the messages above"
    exit 3
  fi
}

need_python() {
  "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' && return
  say "Python 3.11 or later is needed; $PYTHON is older"
  exit 3
}

# What cannot be made is said before anything is installed.
need_target() {
  need_python
  "$PYTHON" -m rootfs.build --known "$@" || exit $?
}

# A virtual environment with the versions of the lock file, made anew when those or the interpreter changed.
need_venv() {
  local stamp=$VENV/.postern-lock wanted
  need_python
  wanted=$("$PYTHON" -c 'import sys; print(sys.base_prefix, sys.version)' && cat tests/requirements.lock)
  [ "$wanted" = "$(cat "$stamp" 2>/dev/null)" ] && return
  say "making $VENV"
  "$PYTHON" -m venv --clear "$VENV"
  "$VENV/bin/pip" install --quiet --disable-pip-version-check --requirement tests/requirements.lock
  printf '%s\n' "$wanted" >"$stamp"
}

# The load of many users comes from locust, which has an environment of its own: nothing else needs what it brings.
need_locust() {
  local room=.cache/locust wanted
  wanted=$("$PYTHON" -c 'import sys; print(sys.base_prefix, sys.version)' && cat tests/bench/locust.lock)
  [ "$wanted" = "$(cat "$room/.postern-lock" 2>/dev/null)" ] && return
  say "making $room"
  "$PYTHON" -m venv --clear "$room"
  "$room/bin/pip" install --quiet --disable-pip-version-check --requirement tests/bench/locust.lock
  printf '%s\n' "$wanted" >"$room/.postern-lock"
}

need_root() {
  [ "$(id -u)" -eq 0 ] && return
  say "$1 makes network namespaces and needs root: sudo ./build.sh $1"
  exit 3
}

# Daemon, portal and workers run as users of their own, who must be able to read the tree. In root's home directory, or in
# a clone made under a strict umask, they are not. The modes of the sources are opened; where a folder above them is closed,
# the task runs on a second view of this folder alone, a bind mount below /run that goes when the task ends.
need_readable() {
  local room status=0
  [ "$(id -u)" -eq 0 ] || return 0
  ! strangers_can_read || return 0
  say "making the sources readable for the users that Postern's processes run as"
  chmod go+rx . && chmod -R go+rX gateway webui rootfs tests
  [ -L "$VENV" ] || chmod -R go+rX "$VENV"
  ! strangers_can_read || return 0
  if [ -n "${POSTERN_SECOND_VIEW:-}" ]; then
    say "other users cannot run $PWD/$VENV/bin/python on these sources: put the folder where they can, in /opt for instance"
    exit 3
  fi
  say "a folder above $PWD is closed to them: going on below /run"
  room=$(mktemp -d /run/postern-tree.XXXXXX)
  chmod 755 "$room"
  # shellcheck disable=SC2064  # the name is settled now
  trap "leave_view '$room'" EXIT
  mkdir "$room/tree"
  mount --bind . "$room/tree"
  if [ -d ../shared ]; then # what the tests read beside the project
    mkdir "$room/shared"
    mount --bind ../shared "$room/shared"
  fi
  POSTERN_SECOND_VIEW=yes "$room/tree/build.sh" "$@" || status=$?
  exit "$status"
}

leave_view() {
  local view
  for view in "$1/tree" "$1/shared"; do
    [ ! -d "$view" ] || umount --lazy "$view" || true
    [ ! -d "$view" ] || rmdir "$view" || true
  done
  rmdir "$1"
}

strangers_can_read() {
  env --chdir=/ PYTHONPATH="$PWD" setpriv --reuid=65534 --regid=65534 --clear-groups \
    "$PWD/$VENV/bin/python" -c 'import msgpack, gateway.daemon, webui.portal' 2>/dev/null
}

check() {
  "$VENV/bin/ruff" format --check .
  "$VENV/bin/ruff" check .
  "$VENV/bin/mypy"
  shellcheck build.sh .ci/run rootfs/debian/{postinst,prerm,postrm} rootfs/overlay/usr/lib/postern/{firstboot,settle,console,radio}
  shellcheck --shell=dash rootfs/image/init openwrt/postern/files/etc/{init.d,uci-defaults,hotplug.d/iface}/*
}

# The helper in machine code for the Python of the environment, beside its source; made again when that is newer.
need_native() {
  need_packages "${COMPILER_PACKAGES[@]}"
  "$VENV/bin/python" -m rootfs.native
}

task=${1:-}
[ $# -gt 0 ] && shift
case "$task" in
  demo)
    need_root demo
    need_packages "${RUN_PACKAGES[@]}"
    case " $* " in *" --radius "*) need_packages "${RADIUS_PACKAGES[@]}" ;; esac
    need_venv
    need_readable demo "$@"
    exec "$VENV/bin/python" -m tests.demo "$@"
    ;;
  test)
    need_packages "${TEST_PACKAGES[@]}"
    need_venv
    need_native
    need_readable test "$@"
    check
    exec "$VENV/bin/python" -m pytest "$@"
    ;;
  check)
    need_packages python3-venv shellcheck
    need_venv
    check
    ;;
  screenshots)
    need_packages python3-venv openssl chromium fonts-dejavu-core
    need_venv
    need_readable screenshots "$@"
    exec "$VENV/bin/python" -m tests.browser.screenshots "$@"
    ;;
  sdist | deb | openwrt)
    need_target "$task" "$@"
    need_packages python3-venv dpkg zopfli binutils binutils-aarch64-linux-gnu "${COMPILER_PACKAGES[@]}"
    need_venv
    exec "$VENV/bin/python" -m rootfs.build "$task" "$@"
    ;;
  image)
    need_target image "$@"
    need_root image
    need_packages "${IMAGE_PACKAGES[@]}"
    [ "${1:-}" != rpi-arm64 ] || [ "$(uname -m)" = aarch64 ] || need_packages "${FOREIGN_IMAGE_PACKAGES[@]}"
    need_venv
    exec "$VENV/bin/python" -m rootfs.build image "$@"
    ;;
  boot)
    board=${1:-}
    case "$*" in
      x86_64 | "x86_64 --test") need_packages "${BOOT_PACKAGES[@]}" qemu-system-x86 ;;
      rpi-arm64 | "rpi-arm64 --test") need_packages "${BOOT_PACKAGES[@]}" qemu-system-arm qemu-efi-aarch64 ;;
      *)
        say "usage: ./build.sh boot x86_64|rpi-arm64 [--test]"
        exit 2
        ;;
    esac
    need_venv
    if [ "${2:-}" = --test ]; then
      need_root boot
      need_packages "${TEST_PACKAGES[@]}"
      [ "$board" != rpi-arm64 ] || [ "$(uname -m)" = aarch64 ] || need_packages "${FOREIGN_IMAGE_PACKAGES[@]}"
      exec env POSTERN_BOARD="$board" "$VENV/bin/python" -m pytest tests/image
    fi
    exec "$VENV/bin/python" -m rootfs.image.qemu "$board"
    ;;
  native)
    need_packages python3-venv
    need_venv
    need_native
    ;;
  golden)
    need_packages "${RUN_PACKAGES[@]}"
    need_venv
    exec "$VENV/bin/python" -m pytest -p no:randomly --rewrite-golden tests/gateway/datapath/test_ruleset.py
    ;;
  bench)
    need_root bench
    need_packages "${BENCH_PACKAGES[@]}"
    need_venv
    case "${1:-}" in
      gate | analysis | web)
        [ "$1" != web ] || need_locust
        [ "$1" = gate ] || need_native
        need_readable bench "$@"
        exec "$VENV/bin/python" -m "tests.bench.$1" "${@:2}"
        ;;
      *)
        say "usage: ./build.sh bench gate|analysis|web"
        exit 2
        ;;
    esac
    ;;
  fuzz)
    need_packages python3-venv
    need_venv
    exec "$VENV/bin/python" -m tests.fuzz "$@"
    ;;
  soak)
    need_root soak
    need_packages "${TEST_PACKAGES[@]}"
    need_venv
    need_readable soak "$@"
    exec "$VENV/bin/python" -m tests.bench.soak "$@"
    ;;
  "" | -h | --help | help) usage ;;
  *)
    say "unknown task: $task"
    usage >&2
    exit 2
    ;;
esac
