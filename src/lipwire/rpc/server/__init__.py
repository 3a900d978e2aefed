"""A running gRPC server: its ports, what it takes on, how it reads large messages."""
