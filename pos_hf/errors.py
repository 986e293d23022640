"""The one exception for bad input; every command turns it into a sentence and exit code 2."""


class InputError(ValueError):
    """A config, folder, image, mask or checkpoint cannot be used as it is.

    The message is one sentence: what is wrong, where, and what to do about it.
    """
