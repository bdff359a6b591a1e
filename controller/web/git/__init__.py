"""Git over HTTP to repositories hosted here, on the event loop: who may do it is decided here, Git runs elsewhere."""
