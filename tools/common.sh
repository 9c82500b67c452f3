# Shared by the scripts of this directory; sourced, never run. POSIX sh.

ROOT=$(cd "$(dirname "$0")/.." && pwd)
WORK="$ROOT/.work"   # logs and compiled parts; ignored by git
VENV="$ROOT/.venv"
IMAGE="${ZKRECIPES_TEST_IMAGE:-zkrecipes/zookeeper:debian}"
mkdir -p "$WORK"

say() { printf '%s\n' "$*" >&2; }

die() {
    say "$*"
    exit 1
}

# Run as root: directly, or by sudo where it asks no password.
as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

can_be_root() {
    [ "$(id -u)" = 0 ] || { command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; }
}

# Try a command three times: a hiccup of the network must not end a long run.
retry() {
    for pause in 3 10; do
        if "$@"; then return 0; fi
        say "failed: $*; once more in $pause s"
        sleep "$pause"
    done
    "$@"
}

apt_get() {
    # The lock of dpkg may be held by a machine that has just started; wait for it. No answers are asked of anybody.
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -y -q -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "$@" </dev/null
}

# try_install PURPOSE PACKAGE...: install by apt, or say in one line what to type and return 1.
try_install() {
    purpose=$1
    shift
    if ! command -v apt-get >/dev/null 2>&1; then
        say "$purpose: not found; install what Debian calls: $*"
        return 1
    fi
    if ! can_be_root; then
        say "$purpose: not found; type: sudo apt-get install -y --no-install-recommends $*"
        return 1
    fi
    log="$WORK/apt.log"
    say "$purpose: installing $* (log: $log)"
    if { retry apt_get update && retry apt_get install --no-install-recommends "$@"; } >"$log" 2>&1; then return 0; fi
    tail -n 15 "$log" >&2
    say "$purpose: the installation failed; type: sudo apt-get install -y --no-install-recommends $*"
    return 1
}

install_packages() { try_install "$@" || exit 1; }

has_java() { [ -x "${JAVA_HOME:-/nonexistent}/bin/java" ] || java -version >/dev/null 2>&1; }

has_javac() { [ -x "${JAVA_HOME:-/nonexistent}/bin/javac" ] || javac -version >/dev/null 2>&1; }

# The same places as zkrecipes.testing.installation looks at. Debian's own scripts set ZOOKEEPER_HOME to a directory
# without jars.
has_local_zookeeper() {
    has_java || return 1
    case "${ZOOKEEPER_HOME:-}" in
    "" | /usr/share/zookeeper*) [ -e /usr/share/java/zookeeper.jar ] ;;
    *) ls "$ZOOKEEPER_HOME"/lib/zookeeper-*.jar "$ZOOKEEPER_HOME"/zookeeper-*.jar 2>/dev/null | grep -q . ;;
    esac
}

# Does a Docker engine answer us? The limit is for an engine that accepts and then hangs.
engine_answers() {
    command -v docker >/dev/null 2>&1 && timeout 20 docker version --format '{{.Server.Version}}' >/dev/null 2>&1
}

has_image() { engine_answers && docker image inspect "$IMAGE" >/dev/null 2>&1; }

# The image that the tests take where ours was not built; pulled if that can be done.
OFFICIAL_IMAGE=zookeeper:3.9
can_have_image() {
    has_image && return 0
    engine_answers && [ -z "${ZKRECIPES_TEST_IMAGE:-}" ] || return 1
    docker image inspect "$OFFICIAL_IMAGE" >/dev/null 2>&1 || timeout 300 docker pull -q "$OFFICIAL_IMAGE" >/dev/null 2>&1
}
