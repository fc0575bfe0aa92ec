"""One incident on one page: what happened, why, what was done, and what was not."""
