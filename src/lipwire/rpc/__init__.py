"""gRPC servers and clients. Only this package owns sockets."""
