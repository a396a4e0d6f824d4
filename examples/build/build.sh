#!/bin/sh
# Build a bundle and both packages from a model and a recorded profile, and check the result.
#
#     sh build.sh [FOLDER]        # FOLDER is new; default: build
#
# Nothing is measured here, so any machine can run this and gets the same bundle.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
out=${1:-build}
mkdir "$out"

# Your own model takes the place of this sample.
model=$out/tiny_cnn.onnx
splitc sample tiny_cnn -o "$model"

# --no-cache: only what is in the repository counts, not what this machine has kept.
compile() {
    splitc compile "$model" --device pixel7 \
        --cloud-profile "$here/tiny_cnn.profile.json" --no-cache -o "$1" >"$1.log"
}

compile "$out/bundle"
splitc verify "$out/bundle" --model "$model"

# The same inputs must give the same bytes. A release can then be rebuilt and compared at any time.
compile "$out/again"
diff -r "$out/bundle" "$out/again"
echo "both builds are identical"

splitc pack "$out/bundle" --side device -o "$out/app.zip"
splitc pack "$out/bundle" --side cloud -o "$out/cloud.zip"
