"""What the platform answers below `/-/`: webhooks, status for machines and for people, metrics."""
