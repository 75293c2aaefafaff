"""How a command behaves as a process: arguments, errors, signals, console, files."""
