"""The command `prichal`: arguments, output, exit codes. Nothing is decided about apps here: commands call the
packages below and show the result.

Commands import those packages inside their functions: `prichal status` should not wait for the Docker SDK.
"""
