"""Tables: the paper's cells beside ours, what is said around them, and every format they are printed in."""
