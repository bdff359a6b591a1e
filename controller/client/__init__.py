"""The clients of a platform's APIs, and their common parts: requests with a person's credentials (`server`),
the meaning of responses (`errors`), and retries (`retry`)."""
