"""What is said to a cluster about the webhook."""
