"""Authentication and authorisation: of callers of APIs (`authenticate`, `oidc`) and of the administrator (`admin`)."""
