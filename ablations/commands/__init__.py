"""One module per subcommand of `ablate`, each imported when it is called; the click object is `command`."""
