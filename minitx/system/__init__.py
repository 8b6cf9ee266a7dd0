"""The machine and the world: errors, exit statuses, files, memory, devices, signals."""
