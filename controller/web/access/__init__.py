"""Who somebody is, and what is his to see: callers of APIs (`auth`, `oidc`) and the administrator (`admin`)."""
