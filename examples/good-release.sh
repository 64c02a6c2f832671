#!/bin/sh
# Commits a release to an OSTree repository and adds it as a Target, as the end of a build would:
#
#     examples/good-release.sh REPOSITORY VERSION HARDWARE_ID [TAG]
#
# The tree is that of the newest release for the hardware id there is, with this version's name and health check in it;
# the first one has little else. Run it where `wave` finds its installation; WAVE names the program if it is not `wave`.
# bad-release.sh does the same with a release that does not pass its own health check.
set -eu

[ $# -ge 3 ] || { sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2; }
repository=$1 version=$2 hardware_id=$3 tag=${4:-main}
check=${HEALTH_CHECK:-exit 0}
branch=lmp/$hardware_id/$version

tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
mkdir -p "$tree/usr/lib" "$tree/usr/bin"
printf 'ID=lmp\nVERSION_ID=%s\nVARIANT_ID=%s\n' "$version" "$hardware_id" > "$tree/usr/lib/os-release"
printf '#!/bin/sh\n# Run by a device after it has started this version; anything but 0 makes it go back.\n%s\n' \
    "$check" > "$tree/usr/bin/health-check"
chmod 755 "$tree" "$tree/usr/bin/health-check"

newest=$(ostree refs --repo="$repository" | sed -n "s|^lmp/$hardware_id/\([0-9][0-9]*\)\$|\1|p" | sort -n | tail -n 1)
set -- --tree=dir="$tree"
if [ -n "$newest" ]; then
    parent=$(ostree rev-parse --repo="$repository" "lmp/$hardware_id/$newest")
    set -- --parent="$parent" --tree=ref="$parent" "$@"
fi
ostree commit --repo="$repository" --branch="$branch" --subject="$hardware_id $version" \
    --no-xattrs --owner-uid=0 --owner-gid=0 --canonical-permissions "$@"
ostree summary --repo="$repository" --update

${WAVE:-wave} target add "$version" "$branch" --hardware-id "$hardware_id" --tag "$tag"
