#!/bin/sh
# The recovery of a real language model, three runs: about 40 minutes on two cores. GSM8K from the Hub or HARNESS_DATA_DIR.
set -e
harness=${HARNESS:-.venv/bin/harness}
# 1. SmolLM2-135M specialised on word problems (what `make smollm2-math` does): skipped where it is there
[ -e runs/smollm2-math/run.json ] || $harness recover smollm2-135m --task mini_math --arms dense --out runs/smollm2-math
# 2. pruned by `best` at 0.3 and fine-tuned, beside the dense model fine-tuned the same way
$harness recover smollm2-math --arms selective,dense --ratio 0.3 --align 1 --steps 80 --learning-rate 5e-5 --seed 1 --curve 1 \
  --limit 400 --task mini_math --task mini_facts --out runs/smollm2-math-recovery
# 3. SmolLM2-135M pruned at 0.2: 20 steps of LoRA on GSM8K, and the loss on held-out answers
$harness recover smollm2-135m --arms selective --ratio 0.2 --align 1 --task gsm8k_answers --tuning lora --steps 20 --curve 0 \
  --limit 150 --out runs/smollm2-gsm8k-recovery
