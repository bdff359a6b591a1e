"""The HTTP APIs that the platform answers itself: files, runs, and what lies below `/-/`."""
