"""What clients of HTTP endpoints share: how many calls are in flight, and when a call that failed is repeated. No torch."""
