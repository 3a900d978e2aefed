"""What several servers know together of tenants, tickets and minutes, by a Redis server."""
