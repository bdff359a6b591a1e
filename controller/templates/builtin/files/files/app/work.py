"""What is done with a file. Replace `process` by your own: the form and the function both call it."""


def process(content):
    """Return a text with numbered lines."""
    lines = content.decode("utf-8", "replace").splitlines()
    return "".join(f"{number:>5}  {line}\n" for number, line in enumerate(lines, 1)).encode()
