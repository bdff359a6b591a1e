"""The version of the schema, kept in SQLite's `user_version`: how many migrations have been applied. Apart from
`schema`, so that finding the state up to date needs no import of sqlite-utils."""

VERSION = 4
