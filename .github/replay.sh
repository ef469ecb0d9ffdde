#!/usr/bin/env bash
# Replays the submissions that a checkout adds to its base commit; prints what to comment.
#   replay.sh CHECKOUT BASE
set -euo pipefail
checkout=$1 base=$2
home=leaderboards/submissions
most=10

refuse() { echo "$1"; exit 1; }

since=$(git -C "$checkout" merge-base "$base" HEAD) || refuse "It shares no history with the base."
changed=$(git -C "$checkout" -c core.quotePath=true diff --no-renames --name-status "$since" HEAD)
[ -n "$changed" ] || refuse "Nothing was added."
if printf '%s\n' "$changed" | grep -vqP "^A\t$home/[a-z0-9-]+/[0-9]{4}-[0-9]{2}-[0-9]{2}_[a-z0-9._-]+/[a-z.]+$"; then
  refuse "A submission adds files under \`$home/TRACK/DATE_NAME/\`, and changes nothing else."
fi
mapfile -t folders < <(printf '%s\n' "$changed" | cut -f2 | xargs -n1 dirname | sort -u)
[ "${#folders[@]}" -le "$most" ] || refuse "At most $most submissions are replayed at a time."
cd "$checkout"
status=0
# -I: nothing of the checkout is imported
rows=$(python -I -m erl_envs.leaderboard verify "${folders[@]}" 2>&1 | head -c 50000) || status=$?
printf 'Replayed by the base branch:\n\n```\n%s\n```\n' "${rows//\`/}"
exit "$status"
