//go:build grpc_before_1_63

package main

import "google.golang.org/grpc"

// dial connects without encryption. Before gRPC 1.63 there was no NewClient; Debian 12 has 1.33.
func dial(address string, options ...grpc.DialOption) (*grpc.ClientConn, error) {
	return grpc.Dial(address, append(options, grpc.WithInsecure())...)
}
