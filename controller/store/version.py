"""The version of the schema, kept in SQLite's `user_version`: the number of applied migrations. It is not in
`schema`, so that checking the state needs no import of sqlite-utils.
"""

VERSION = 19
