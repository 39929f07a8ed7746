# Build .venv with $PYTHON; on Debian, add the package that a bare Python lacks for it.
set -u
rm -rf .venv
"$PYTHON" -m venv .venv >/dev/null 2>&1 && exit 0
rm -rf .venv
if command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" = 0 ]; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq >/dev/null 2>&1
    apt-get install -y -qq --no-install-recommends python3-venv >/dev/null 2>&1
fi
"$PYTHON" -m venv .venv >/dev/null && exit 0
rm -rf .venv
echo "$PYTHON cannot make a virtual environment: install its venv module (Debian: apt install python3-venv)." >&2
exit 1
