#!/usr/bin/env bash
# Fuzzes what reads files (readers.cpp), each reader for some seconds, from small seeds of this tree.
# usage: run.sh BUILD_FOLDER [SECONDS]   77: there is no clang++ with libFuzzer
set -euo pipefail
folder=$1 seconds=${2:-5}
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
cd "$root"

if ! echo 'extern "C" int LLVMFuzzerTestOneInput(const char*, unsigned long) { return 0; }' |
  clang++ -x c++ - -fsanitize=fuzzer -o "$folder/probe" 2>/dev/null; then
  echo "skipped: no clang++ with libFuzzer"
  exit 77
fi

clang++ -std=c++20 -O1 -g1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -Iinclude \
  tests/fuzz/readers.cpp -o "$folder/readers" -lpcre2-8 -lutf8proc -lz -lzstd -lsimdjson

golden=tests/golden
seeds() {  # <reader> <folder>
  case $1 in
    tokenizer)
      cp "$golden"/pieces/*.model "$golden"/pieces/*.json examples/data/tok512.bin "$2"
      for family in gpt2 llama3 qwen2; do
        cp "$golden/models/$family/tokenizer.json" "$2/$family.json"
      done ;;
    gguf) cp "$golden"/models/*.gguf "$2" ;;
    safetensors) for family in gpt2 llama; do
        cp "$golden/adapters/$family/adapter_model.safetensors" "$2/$family"
      done ;;
    checkpoint) PLUMB_FUZZ=checkpoint "$folder/readers" --seeds "$2" ;;
    llama2c) head -c 60000 examples/data/stories260K.bin >"$2/model" ;;
    data)
      head -n 3 examples/data/oasst_kway_rankings_train.jsonl >"$2/rankings"
      head -n 3 examples/data/pandalm_votes_train.jsonl >"$2/votes"
      head -n 2 examples/data/explain_to_a_child.jsonl >"$2/prompts"
      head -c 800 examples/data/tinystories_heldout.txt >"$2/stories"
      printf '%s\n' '[{"prompt": "a", "chosen": "b", "rejected": "c"},' '{"prompt": "d"}]' >"$2/list"
      printf '%s\n' '[{"fields":{"prompt":"a","x-1":"b","x-2":"c"},"responses":[{"user_id":"u",' \
        '"status":"submitted","values":{"q":{"value":[{"value":"x-1","rank":1},' \
        '{"value":"x-2","rank":2}]}}}]}]' >"$2/argilla"
      printf '%s\n' '{"prompt":"a","x":"b","y":"c","q.responses":[[{"value":"x","rank":1}]],' \
        '"q.responses.users":["u"],"q.responses.status":["submitted"]}' | tr -d '\n' >"$2/argilla-flat"
      printf '%s\n' '[{"id":1,"data":{"prompt":"a","items":[{"id":"x","body":"b"},{"id":7,"title":"c"}]},' \
        '"annotations":[{"completed_by":{"id":3},"lead_time":2,"result":[{"type":"ranker",' \
        '"value":{"ranker":{"_":[],"rank":[7,"x"]}}}]}]},{"data":{"prompt":"a","t1":"b","t2":"c"},' \
        '"annotations":[{"result":[{"type":"pairwise","to_name":"t1,t2","value":{"selected":"left"}}]}]}]' \
        >"$2/label-studio"
      printf '%s\n' '[{"prompt":"a","t1":"b","t2":"c","pw":[{"selected":"right"}],"annotator":3,' \
        '"annotation_id":7}]' >"$2/json-min"
      printf '%s\n' 'prompt,chosen,rejected' '"a ""b""",c,"d' 'e"' 'f,g,h' >"$2/pairs.csv"
      gzip -nc "$2/prompts" >"$2/prompts.gz" ;;
  esac
}

failed=0
for reader in tokenizer gguf safetensors checkpoint llama2c data; do
  rm -rf "${folder:?}/$reader"
  mkdir -p "$folder/$reader"
  seeds "$reader" "$folder/$reader"
  # Memory: one allocation of 64 MiB, many times what a file of these sizes may take.
  if PLUMB_FUZZ=$reader PLUMB_FUZZ_FOLDER=$folder "$folder/readers" "$folder/$reader" \
    -max_total_time="$seconds" -max_len=131072 -timeout=10 -malloc_limit_mb=64 -rss_limit_mb=2048 \
    -seed=1 -artifact_prefix="$folder/$reader-" >"$folder/$reader.log" 2>&1; then
    echo "ok      $reader: $(grep -c . <(ls "$folder/$reader")) inputs kept; $(tail -n 1 "$folder/$reader.log")"
  else
    echo "FAILED  $reader:"
    tail -n 40 "$folder/$reader.log"
    failed=1
  fi
done
exit $failed
