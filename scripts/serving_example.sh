#!/bin/sh
# The serving table of reports/example: a model at FFN widths 1.0, 0.8 and 0.5, dense twice to show the noise.
#   scripts/serving_example.sh MODEL FOLDER [options of harness bench]
# Which neurons go does not matter for speed, so that few prompts are scored. About 5 minutes for tiny-math, 15 for smollm2-135m.
set -eu
model=$1 out=$2
shift 2
PATH="$PWD/.venv/bin:$PATH"
mkdir -p "$out"
harness score "$model" --task mini_math --calibration-samples 20 --metric rms --no-compensate --out "$out/scores.safetensors"
for ratio in 0.2 0.5; do
  harness plan "$out/scores.safetensors" --metric rms --ratio "$ratio" --out "$out/plan-$ratio.safetensors"
  harness prune "$model" "$out/plan-$ratio.safetensors" --out "$out/removed-$ratio"
done
harness bench "$model" "$model" "$out/removed-0.2" "$out/removed-0.5" --threads 1 --out "$out/bench" "$@"
