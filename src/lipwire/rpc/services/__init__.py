"""The gRPC services: messages read, the serving core asked, answers written."""
