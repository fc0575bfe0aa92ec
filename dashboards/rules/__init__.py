"""Recording rules and alerts for Prometheus, as data, and the files that `trimtab rules write` makes of them."""
