"""Live sessions for browsers: WebRTC by WHEP, an HTTP API, and a page that talks."""
