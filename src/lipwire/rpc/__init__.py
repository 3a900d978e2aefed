"""The wire: gRPC servers and clients. The only room that owns sockets."""
