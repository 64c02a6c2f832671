#!/bin/sh
# Commits a release that does not pass its own health check, and adds it as a Target; used like good-release.sh:
#
#     examples/bad-release.sh REPOSITORY VERSION HARDWARE_ID [TAG]
#
# Every device that starts it goes back to what it had and says so. To see how a rollout stops; nothing else.
set -eu
export HEALTH_CHECK='echo "the display stays black" >&2; exit 1'
exec "$(dirname "$0")/good-release.sh" "$@"
