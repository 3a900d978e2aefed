//go:build !grpc_before_1_63

package main

import (
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// dial connects without encryption, as the guide's client does.
func dial(address string, options ...grpc.DialOption) (*grpc.ClientConn, error) {
	plain := grpc.WithTransportCredentials(insecure.NewCredentials())
	return grpc.NewClient(address, append(options, plain)...)
}
