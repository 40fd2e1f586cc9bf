"""The paper's tables and figures, section V: what it printed, what we run for it, and what is written beside it."""
