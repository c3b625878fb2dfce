"""Every figure of a study: `catalogue` lists them, the other files compute and draw them."""
