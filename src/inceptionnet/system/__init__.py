"""What the rest asks of the machine: files, devices, processes, optional packages, and a progress bar."""
