"""The platform's own pages below `/-/`: webhooks, status for machines and for people, metrics."""
