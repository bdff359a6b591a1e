"""The run API: Flask's `views` start, change and list runs; `live`, on the event loop, follows one."""
