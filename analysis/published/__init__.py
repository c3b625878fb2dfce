"""A finished study as a folder of small files that anybody can check: `ablate publish`, `ablate verify`."""
