#!/usr/bin/env bash
# A base install has neither torch nor onnxruntime, reads bundles, and says what to install for more.
set -euo pipefail
bin="$(realpath "$1")/bin"
installed=$("$bin/pip" list --format=freeze)
for heavy in torch onnxruntime transformers onnx; do
    if grep -qi "^$heavy==" <<<"$installed"; then echo "a base install brought $heavy" >&2; exit 1; fi
done
cd "$(mktemp -d)"
set +e
message=$("$bin/headway" doctor 2>&1)
code=$?
if [ "$code" != 5 ] || ! grep -q "pip install 'headway\[cpu\]'" <<<"$message"; then
    echo "doctor without an engine: exit code $code, $message" >&2
    exit 1
fi
message=$("$bin/headway" train text-classification --model m --train t.jsonl --output o 2>&1)
code=$?
set -e
if [ "$code" != 5 ] || ! grep -q "pip install 'headway\[train\]'" <<<"$message"; then
    echo "training without torch: exit code $code, $message" >&2
    exit 1
fi
echo "base install: as it should be"
