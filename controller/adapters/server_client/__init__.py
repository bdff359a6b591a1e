"""What the clients of a platform's APIs have in common: requests with a person's credentials (`server`), what becomes
of the answers (`errors`), and trying again (`patience`)."""
