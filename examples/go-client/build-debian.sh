#!/bin/sh
# Build the client with what Debian 12 packages, without the network: build-debian.sh [PROGRAM]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
program=$(realpath "${1:-$here/lipwire-go-client}")
gopath=$(mktemp -d)
trap 'rm -rf "$gopath"' EXIT
source=$gopath/src/lipwire-go-client
mkdir -p "$source/proto"
cp "$here"/*.go "$source"
cd "$source"
protoc -I"$here" --go_out=plugins=grpc,paths=source_relative:. proto/compositing.proto
GO111MODULE=off GOPATH=$gopath:/usr/share/gocode go build -tags grpc_before_1_63 -o "$program" .
