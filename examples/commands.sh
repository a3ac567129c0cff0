#!/usr/bin/env bash
# The commands, without Python: bash commands.sh [MODEL [DRAFT]]. Leaves nothing behind.
set -euo pipefail
MODEL=${1:-$(specdec-native pull pycode)}
DRAFT=${2:-$(specdec-native pull pycode-draft)}
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT

echo "== what they are, and whether the second can draft for the first"
specdec inspect "$MODEL" -md "$DRAFT"

echo "== a text; --check decodes once more without drafts and compares"
specdec generate -m "$MODEL" -md "$DRAFT" -p "def add(" -n 32 --check

echo "== what each pass guessed"
specdec generate -m "$MODEL" -md "$DRAFT" -p "def add(" -n 16 --trace

echo "== text that follows a schema"
specdec generate -m "$MODEL" -p "A point: " -n 60 -q \
  -j '{"type": "object", "properties": {"x": {"type": "integer", "maximum": 9, "minimum": 0}, "y": {"enum": [1, 2]}}, "required": ["x", "y"]}'

echo "== a smaller file, and what it costs in accuracy"
specdec quantize "$MODEL" "$folder/small.gguf" Q4_0 --allow-requantize -q
printf 'def add(a, b):\n    return a + b\n\n%.0s' {1..40} > "$folder/text.py"
for model in "$MODEL" "$folder/small.gguf"; do
  specdec perplexity -m "$model" -f "$folder/text.py" -c 256 --chunks 1
done

echo "== what verifying a draft costs here"
specdec bench -m "$MODEL" --rows 1,4,8 --rounds 3
