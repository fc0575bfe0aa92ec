"""The fleet host: runs a fleet's replicas as processes and keeps gateway, scrape targets and GPU slots in step with them."""
