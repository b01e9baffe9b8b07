"""The plugin host: which packages teach hubclient architectures, formats and commands."""
