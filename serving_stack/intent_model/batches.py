"""Which texts go through the network together, with little padding. Runs inside Triton: standard library only."""

from __future__ import annotations

from collections.abc import Sequence


def grouped(lengths: Sequence[int], overhead: int, most: int) -> list[list[int]]:
    """Positions of texts in groups of similar length; every position occurs once.

    The groups are those with the least cost, where a group costs `overhead` tokens for its run and one token for each place
    of its rectangle, padding included. A group of several texts has at most `most` places. At most n squared steps for n texts.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    cost, begins = [0], [0]  # of the first n texts in this order: the least cost, and where its last group begins
    for end in range(1, len(order) + 1):
        longest = lengths[order[end - 1]]
        least, begin = cost[end - 1] + overhead + longest, end - 1
        for start in range(end - 2, -1, -1):
            places = (end - start) * longest
            if places > most:
                break
            if (here := cost[start] + overhead + places) < least:
                least, begin = here, start
        cost.append(least)
        begins.append(begin)
    groups, end = [], len(order)
    while end:
        groups.append(order[begins[end] : end])
        end = begins[end]
    return groups[::-1]
