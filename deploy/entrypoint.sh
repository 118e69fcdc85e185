#!/bin/sh
# Every file of /run/secrets becomes the variable that it is named after, of this process and what it starts alone:
# `docker inspect` and command lines show none.
set -eu
for file in /run/secrets/*; do
    if [ -f "$file" ]; then export "$(basename "$file")=$(cat "$file")"; fi
done
exec "$@"
