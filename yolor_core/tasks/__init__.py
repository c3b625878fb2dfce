"""Tasks beside detection, and how the losses of several tasks become one (paper section 5.4)."""
