"""The command `prichal`: arguments, output, exit codes. No decision about apps is made here: commands call the rooms
below and show what they say.

Commands import those rooms inside their functions: `prichal status` should not wait for the Docker SDK.
"""
