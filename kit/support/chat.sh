#!/bin/sh
# Talk with the model in this folder, without a network:  sh chat.sh
# The arguments are those of `issun chat`, such as --no-history.
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P) || exit 2
start=$here/support/start.py
for wheels in "$here"/wheels/*; do
  for python in "python${wheels##*-}" python3 python; do
    if "$python" -I "$start" --fits </dev/null >/dev/null 2>&1; then
      exec "$python" -I "$start" "$@"
    fi
  done
done
cat "$here/support/python-needed.txt" >&2
exit 2
