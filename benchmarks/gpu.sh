#!/usr/bin/env bash
# Everything that needs a GPU, in one run: tests, agreement, throughput of maps, steps of training.
#
#     benchmarks/gpu.sh                        # on the first GPU; tables in gpu-results/
#     DEVICE=cpu ROUNDS=1 SIZE=640 SIDE=384 STEPS=1 SECONDS_ALONE=1 benchmarks/gpu.sh    # tries it without a GPU
#
# PYTHON is the interpreter with geocfl, OUT the folder of the tables, EUROSAT an EuroSAT.zip that fills the scene of the
# throughput (noise without it), SIZE its side in pixels, SIDE that of the corner of the demonstration scene that is
# mapped in both precisions (the whole scene without it), PEER_ROWS the rows that the alternatives classify (all without
# it), LIMIT the seconds of a step at most. A step that fails does not stop the others; the exit status is the number of
# failures.
set -uo pipefail
cd "$(dirname "$0")/.." || exit

device=${DEVICE:-cuda}
python=${PYTHON:-.venv/bin/python}
out=${OUT:-gpu-results}
rounds=${ROUNDS:-3}
size=${SIZE:-10980}
limit=${LIMIT:-3600}
steps=${STEPS:-100}
seconds=${SECONDS_ALONE:-5}
eurosat=(${EUROSAT:+--eurosat "$EUROSAT"})
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out"
failed=0

step() { # NAME COMMAND...: runs a command, and keeps what it prints as NAME.txt
    local name=$1
    shift
    echo "== $name: $*"
    timeout --kill-after=5 "$limit" "$@" 2>&1 | tee "$out/$name.txt" || {
        echo "== $name failed"
        failed=$((failed + 1))
    }
}

step card "$python" -c "
import platform, sys, torch
name = torch.cuda.get_device_name('$device') if '$device'.startswith('cuda') else platform.processor() or platform.machine()
print(f'{name}, torch {torch.__version__}, Python {platform.python_version()}')"
step tests "$python" -m pytest -q -rs -p no:cacheprovider tests/models/test_backends.py tests/data/test_placed.py \
    tests/mapping/test_device.py \
    -k "test_a_gpu_ or missing_pixels or filled_up or halved"
step agreement "$python" benchmarks/agreement.py --device "$device" ${SIDE:+--side "$SIDE"}
for turn in first second; do
    step "start-$turn" "$python" benchmarks/startup.py --steps "$device"
done
step training "$python" benchmarks/training_step.py --device "$device" --rounds "$rounds" --steps "$steps" \
    --json "$out/training.json"
step throughput "$python" benchmarks/map_throughput.py --device "$device" --rounds "$rounds" --size "$size" \
    --seconds "$seconds" ${PEER_ROWS:+--peer-rows "$PEER_ROWS"} --work "$work" "${eurosat[@]}" \
    --json "$out/throughput.json"
scene=("$work"/tile_"$size"_*.tif)
for stride in 64 16; do
    for model in eurosat-rgb-lite0 eurosat-rgb-dense; do
        step "profile-$model-$stride" "$python" benchmarks/map_profile.py "${scene[0]}" --model "$model" \
            --device "$device" --stride "$stride"
    done
    step "profile-batches-$stride" "$python" benchmarks/map_profile.py "${scene[0]}" --model eurosat-rgb-lite0 \
        --device "$device" --stride "$stride" --batch-size "${LARGE_BATCH:-1024}"
done
step compiled "$python" benchmarks/training_step.py --device "$device" --rounds "$rounds" --steps "$steps" \
    --cases resnet18 --compile

echo "== tables in $out; $failed failures"
exit "$failed"
