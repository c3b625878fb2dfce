"""What came out: reading runs, comparing them, and printing tables. Reads files only; never imports torch."""
