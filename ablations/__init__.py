"""What to run: the experiments of Tables 1-8, the profiles that scale them, and the `ablate` command line."""
