#!/usr/bin/env bash
# Everything that `make demo` and `make test` need, on a fresh Debian 12 with Python 3.11 and package registries only:
# Debian packages (their services neither started nor enabled), uv and a virtual environment, Go, the cluster programs.
# With the argument `train` also what training the models needs (torch: 2.7 GB to fetch, 5 GB on disk).
# Each part is skipped when it is there; nothing to do takes well under a second.
set -euo pipefail

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/kintsugi
log=$cache/setup.log
# uv takes the machine's certificates, as apt, pip, npm and Go do, and no Python from elsewhere.
export PATH=$PATH:/usr/sbin:/sbin UV_PYTHON_DOWNLOADS=never UV_SYSTEM_CERTS=${UV_SYSTEM_CERTS:-true}

say() { printf 'kintsugi: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# --- Debian packages -------------------------------------------------------------------------------------------------

missing=()
need() { # PACKAGE PROGRAM-OR-FILE: note the package when the program or file is not there
  case $2 in
    /*) [ -e "$2" ] || missing+=("$1") ;;
    *) command -v "$2" >/dev/null || missing+=("$1") ;;
  esac
}

python() { # print a Python that is new enough, or fail
  local candidate
  for candidate in python3.11 python3 python3.12 python3.13 python3.14; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  return 1
}

# Run by root. Maintainer scripts start no service, no default cluster is made, and nothing starts at the next boot.
install_script='
set -eu
export DEBIAN_FRONTEND=noninteractive
policy=/usr/sbin/policy-rc.d
no_cluster=/etc/postgresql-common/createcluster.d/kintsugi.conf
clean() { [ -z "${made_policy:-}" ] || rm -f "$policy"; rm -f "$no_cluster"; }
trap clean EXIT
if [ ! -e "$policy" ]; then
  printf "#!/bin/sh\nexit 101\n" >"$policy"
  chmod 755 "$policy"
  made_policy=yes
fi
mkdir -p "${no_cluster%/*}"
echo "create_main_cluster = false" >"$no_cluster"
apt-get -q -o DPkg::Lock::Timeout=300 update
apt-get -q -y -o DPkg::Lock::Timeout=300 install --no-install-recommends "$@"
command -v systemctl >/dev/null || exit 0
for package in "$@"; do
  for unit in $(dpkg -L "$package" | sed -nE "s#.*/systemd/system/([^@/]*\.(service|timer))\$#\1#p"); do
    systemctl disable "$unit" || true
  done
done
'

install_packages() {
  local root=()
  command -v apt-get >/dev/null ||
    die "this machine has no apt-get; install what Debian 12 calls ${missing[*]}, then run this again"
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || die "not root and no sudo; have root run: apt-get install ${missing[*]}"
    root=(sudo)
  fi
  say "installing by apt: ${missing[*]} (messages in $log)"
  "${root[@]}" sh -c "$install_script" install "${missing[@]}" </dev/null >>"$log" 2>&1 || {
    tail -n 5 "$log" >&2
    die "apt could not install ${missing[*]}; see $log, make the Debian mirror reachable, then run this again"
  }
}

debian_packages() {
  need ca-certificates /etc/ssl/certs/ca-certificates.crt
  need procps ps
  need iproute2 ss
  need npm npm
  need prometheus prometheus
  need prometheus-node-exporter prometheus-node-exporter
  need prometheus-postgres-exporter prometheus-postgres-exporter
  need pgbouncer pgbouncer
  need postgresql-15 /usr/lib/postgresql/15/bin/postgres
  need postgresql-15-hypopg /usr/share/postgresql/15/extension/hypopg.control
  need chromium chromium
  if [ ! -x "$cache/uv/bin/uv" ]; then
    "$(python || echo false)" -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3 python3-venv)
  fi
  if [ ${#missing[@]} -gt 0 ]; then install_packages; fi
}

# --- Python ----------------------------------------------------------------------------------------------------------

own_uv() {
  [ -x "$cache/uv/bin/uv" ] && return
  local python
  python=$(python) || die "no Python 3.11 or newer; install python3.11, then run this again"
  say "fetching uv from PyPI"
  rm -rf "$cache/uv.partial"
  { "$python" -m venv "$cache/uv.partial" && "$cache/uv.partial/bin/pip" install -q 'uv>=0.13'; } >>"$log" 2>&1 ||
    die "uv could not be had from PyPI; see $log, make PyPI reachable, then run this again"
  rm -rf "$cache/uv"
  mv "$cache/uv.partial" "$cache/uv"
}

virtual_environment() { # EXTRA: install the package with it
  local extra=$1 state python
  local stamp=$repository/.venv/kintsugi-setup-$extra
  state="$repository $(sha256sum <"$repository/pyproject.toml")"
  [ -e "$stamp" ] && [ "$(<"$stamp")" = "$state" ] && return
  say "installing Python packages ($extra) into .venv"
  if [ ! -x "$repository/.venv/bin/python" ]; then
    python=$(python) || die "no Python 3.11 or newer; install python3.11, then run this again"
    "$cache/uv/bin/uv" venv -q --python "$python" "$repository/.venv"
  fi
  "$cache/uv/bin/uv" pip install -q -p "$repository/.venv/bin/python" -e "$repository[$extra]" ||
    die "Python packages could not be had from PyPI (the message is above); make PyPI reachable, then run this again"
  printf '%s' "$state" >"$stamp"
}

# ---------------------------------------------------------------------------------------------------------------------

main() {
  local started=$SECONDS
  mkdir -p "$cache"
  exec 9>"$cache/setup.lock"
  flock -n 9 || { say "another setup is at work; waiting for it"; flock 9; }
  debian_packages
  own_uv
  virtual_environment dev
  [ "${1:-}" != train ] || virtual_environment train
  "$repository/.venv/bin/python" -m kintsugi_dev.cluster build 9>&-
  [ $((SECONDS - started)) -lt 2 ] || say "set up in $((SECONDS - started)) s"
}

main "$@"
