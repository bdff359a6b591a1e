"""The files API of an app: `views` over `answers`, over what may be done in an `area`, and over `uploads` in parts."""
