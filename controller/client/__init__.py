"""What the clients of a platform's APIs have in common: requests with a person's credentials (`server`), the
meaning of responses (`errors`), and retries (`retry`).
"""
