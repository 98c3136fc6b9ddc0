#!/usr/bin/env bash
# Installs sspolicy in the folder DIR: the released program of VERSION, or one built from
# the checkout of the action if VERSION is empty. A download is installed only if its
# SHA-256 matches the checksums of the release, and SHA256 if that is set.
set -euo pipefail

: "${DIR:?}" "${VERSION=}" "${SHA256=}" "${RUNNER_OS:?}" "${RUNNER_ARCH:?}"
releases=${RELEASES:-https://github.com/secure-streams/sspolicy/releases/download}
source=$(cd "$(dirname "$0")/.." && pwd)
program=sspolicy
if [ "$RUNNER_OS" = Windows ]; then program=sspolicy.exe; fi

fail() {
	echo "::error title=sspolicy::${1//[$'\r\n']/ }" # a line break would start another command of the runner
	exit 1
}

[[ $VERSION =~ ^(v[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?)?$ ]] || fail "version must be a tag such as v0.1.0, not $VERSION"
if [ -x "$DIR/$program" ]; then
	exit 0 # from the cache
fi
mkdir -p "$DIR"

if [ -z "$VERSION" ]; then
	command -v go >/dev/null || fail "go is missing: use actions/setup-go before, or give the input version"
	(cd "$source" && go build -trimpath -o "$DIR/$program" ./cmd/sspolicy)
	exit 0
fi

case $RUNNER_OS in
Linux) os=linux ext=tar.gz ;;
macOS) os=darwin ext=tar.gz ;;
Windows) os=windows ext=zip ;;
*) fail "there is no release for $RUNNER_OS: leave out the input version to build from source" ;;
esac
case $RUNNER_ARCH in
X64) arch=amd64 ;;
ARM64) arch=arm64 ;;
ARM) arch=armv7 ;;
*) fail "there is no release for $RUNNER_ARCH: leave out the input version to build from source" ;;
esac
name=sspolicy_${VERSION#v}_${os}_$arch

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for file in "$name.$ext" "sspolicy_${VERSION#v}_checksums.txt"; do
	curl -fsSL --proto-redir =https --retry 3 -o "$work/$file" "$releases/$VERSION/$file" || fail "cannot download $releases/$VERSION/$file"
done
want=$(awk -v file="$name.$ext" '$2 == file { print $1 }' "$work/sspolicy_${VERSION#v}_checksums.txt")
if command -v sha256sum >/dev/null; then
	got=$(sha256sum <"$work/$name.$ext")
else
	got=$(shasum -a 256 <"$work/$name.$ext")
fi
got=${got%% *}
[ "$got" = "$want" ] || fail "$name.$ext has the SHA-256 $got, and the list of checksums ${want:-nothing}"
[ -z "$SHA256" ] || [ "$got" = "$SHA256" ] || fail "$name.$ext has the SHA-256 $got, not $SHA256"
if [ $ext = zip ]; then
	unzip -q "$work/$name.$ext" -d "$work"
else
	tar -xzf "$work/$name.$ext" -C "$work"
fi
mv "$work/sspolicy-${VERSION#v}/$program" "$DIR/$program"
