"""The error for input that cannot work."""


class InputError(ValueError):
    """A file or a setting that cannot work. The message is one line that names it and what was expected; the tools print
    that line without a traceback.
    """
