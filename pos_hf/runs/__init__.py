"""From a config to a finished run folder: what `cli/` and `studies/` both call. No command is parsed here."""
