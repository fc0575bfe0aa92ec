"""The scaling decision in virtual time: a queueing model of a fleet, situations, and the rules that are compared on them."""
