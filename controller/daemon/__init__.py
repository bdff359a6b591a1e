"""The composition root, and how the daemon starts and stops. Everything that needs the engine or Git is connected
here.
"""
