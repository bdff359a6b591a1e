"""The composition root, and how the daemon starts and stops. Everything that needs Docker or Git is connected
here.
"""
