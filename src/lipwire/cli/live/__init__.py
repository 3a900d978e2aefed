"""What ``lipwire converse`` is made of: speech to send, what is kept of the answer, figures."""
