#!/bin/sh
# Installs the programs that the end-to-end tests drive: from Debian where this is root, and with Go what Debian
# has not. Only what is missing; quiet but for what it could not install, which the tests then name and skip.
# It never fails: what is missing is for the tests to judge.
set -u

here=$(cd "$(dirname "$0")" && pwd)
tools=$here/.tools
PATH=$PATH:/usr/sbin:/sbin

# program:package, the first package that Debian knows of those that offer a program
debian='dockerd:docker.io docker:docker.io docker:docker-cli containerd:containerd ctr:containerd skopeo:skopeo
podman:podman runc:runc umoci:umoci docker-registry:docker-registry nginx:nginx-light caddy:caddy redis-server:redis-server
chromium:chromium openssl:openssl curl:curl unshare:util-linux'

# program package@version, pinned: another version here is another build there
go='crane github.com/google/go-containerregistry/cmd/crane@v0.22.1
regctl github.com/regclient/regclient/cmd/regctl@v0.11.7
oras oras.land/oras/cmd/oras@v1.3.6
conformance github.com/opencontainers/distribution-spec/conformance@v0.0.0-20260831232431-97274622c111
registry github.com/distribution/distribution/v3/cmd/registry@v3.1.2
versitygw github.com/versity/versitygw/cmd/versitygw@v1.8.0
buildkitd github.com/moby/buildkit/cmd/buildkitd@v0.34.2
buildctl github.com/moby/buildkit/cmd/buildctl@v0.34.2
actionlint github.com/rhysd/actionlint/cmd/actionlint@v1.7.12'

has() { command -v "$1" >/dev/null 2>&1; }

missing_packages() {
  for pair in $debian; do
    has "${pair%%:*}" || echo "${pair#*:}"
  done | sort -u
}

install_debian() {
  [ "$(id -u)" = 0 ] && has apt-get || return 0
  [ -n "$(missing_packages)" ] || return 0
  # A test starts its servers itself: a package's own service would take the port and outlive the run.
  policy=/usr/sbin/policy-rc.d
  if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 1' HUP INT TERM
    printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod +x "$policy"
  fi
  log=$(mktemp)
  apt() {
    DEBIAN_FRONTEND=noninteractive apt-get -qq -o Acquire::Retries=1 -o Acquire::http::Timeout=20 \
      -o DPkg::Lock::Timeout=120 "$@" >"$log" 2>&1 </dev/null || { tail -n 5 "$log" && return 1; }
  }
  apt update
  known=
  for package in $(missing_packages); do
    [ -n "$(apt-cache search --names-only "^$package\$" 2>/dev/null)" ] && known="$known $package"
  done
  # One that breaks must not keep the others out.
  # shellcheck disable=SC2086
  [ -z "$known" ] || apt install --yes --no-install-recommends $known ||
    for package in $known; do apt install --yes --no-install-recommends "$package"; done
  rm -f "$log"
}

# Builds one package@version. `go install` refuses modules that exclude versions of others (BuildKit): those are
# built as a dependency of an empty module.
build_go() {
  export GOBIN="$tools/bin" GOFLAGS=
  go install "$1" && return
  empty=$(mktemp -d "$tools/module.XXXXXX") || return
  (cd "$empty" && go mod init tools && go get "$1" && go install "${1%@*}")
  built=$?
  rm -rf "$empty"
  return $built
}

install_go() {
  has go || return 0
  mkdir -p "$tools/bin" || return 0
  echo "$go" | while read -r program module; do
    mark=$tools/$program.version
    [ -x "$tools/bin/$program" ] && [ "$(cat "$mark" 2>/dev/null)" = "$module" ] && continue
    if out=$(cd "$tools" && build_go "$module" 2>&1 </dev/null); then
      echo "$module" >"$mark"
    else
      echo "$out" | tail -n 3
    fi
  done
}

report() {
  for pair in $debian; do
    has "${pair%%:*}" || echo "not installed: ${pair%%:*}"
  done | sort -u
  echo "$go" | while read -r program _; do
    [ -x "$tools/bin/$program" ] || echo "not installed: $program"
  done
}

install_debian
install_go
report
exit 0
