"""The exceptions that callers of Trimtab meet. Everything else is translated at the boundary where it appears."""


class TrimtabError(Exception):
    """Base of all: its text is one sentence for a person. The command line prints it and exits with 2."""


class SettingsError(TrimtabError):
    """A setting, scenario or plan is wrong. The text names file and line where there is one."""


class Undecodable(TrimtabError):
    """Bytes that are not the message they should be."""


class Unavailable(TrimtabError):
    """Something outside does not answer now; trying again later may help."""


class Missing(TrimtabError):
    """Something that must be there is not: a jar, a model, a port, memory. The text says how to get it."""
