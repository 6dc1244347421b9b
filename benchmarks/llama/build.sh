#!/bin/sh
# Build llama.cpp's server and a tiny model for it: build.sh FOLDER
# FOLDER is a virtual environment with pip, gguf and numpy; needs a C++ compiler, cmake and ninja.
# The source is that of llama-cpp-python, which carries llama.cpp whole (77 MB, 5 minutes or more).
set -eu

version=0.3.36
sum=832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e
folder=$(cd "$1" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
source="$folder/src/llama_cpp_python-$version"

for tool in cmake ninja c++; do
    command -v "$tool" >/dev/null || { echo "building llama.cpp needs $tool" >&2; exit 1; }
done

if [ ! -x "$folder/bin/llama-server" ]; then
    mkdir -p "$folder/src"
    "$folder/bin/python" -m pip download --quiet --no-deps --no-binary llama-cpp-python \
        --dest "$folder/src" "llama-cpp-python==$version"
    echo "$sum  $source.tar.gz" | sha256sum --check --quiet
    tar -xzf "$source.tar.gz" -C "$folder/src"
    cmake -G Ninja -S "$source/vendor/llama.cpp" -B "$folder/src/build" \
        -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=OFF -DGGML_NATIVE=ON -DGGML_CCACHE=OFF \
        -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF \
        -DLLAMA_BUILD_APP=OFF -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF >/dev/null
    ninja -C "$folder/src/build" llama-server >/dev/null
    cp "$folder/src/build/bin/llama-server" "$folder/bin/"
    rm -rf "$folder/src"
fi
"$folder/bin/python" "$here/make_model.py" "$folder/model.gguf"
