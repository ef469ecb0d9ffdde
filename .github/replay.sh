#!/usr/bin/env bash
# Replays the submissions that a checkout adds to its base commit; prints what to comment.
#   replay.sh CHECKOUT BASE
set -euo pipefail
checkout=$1 base=$2
home=leaderboards/submissions

changed=$(git -C "$checkout" -c core.quotePath=true diff --name-status "$(git -C "$checkout" merge-base "$base" HEAD)" HEAD)
if [ -z "$changed" ]; then
  echo "Nothing was added."
  exit 1
fi
if printf '%s\n' "$changed" | grep -vqP "^A\t$home/[a-z0-9-]+/[0-9]{4}-[0-9]{2}-[0-9]{2}_[a-z0-9._-]+/[a-z.]+$"; then
  echo "A submission adds files under \`$home/TRACK/DATE_NAME/\`, and changes nothing else."
  exit 1
fi
mapfile -t folders < <(printf '%s\n' "$changed" | cut -f2 | xargs -n1 dirname | sort -u)
cd "$checkout"
status=0
rows=$(python -I -m erl_envs.leaderboard verify "${folders[@]}" 2>&1) || status=$?
printf 'Replayed by the base branch:\n\n```\n%s\n```\n' "${rows//\`/}"
exit "$status"
